/**
 * Configuration in a table of PostgreSQL with the columns key, value, version and metadata, as Dapr's component reads
 * it. Changes come by NOTIFY, which a trigger of the user's sends.
 */
import type {
  ConfigurationItem,
  ConfigurationStore,
  ConfigurationSubscription,
  Metadata,
  OnChange,
} from "../../blocks/configuration/port.ts";
import { unmarshalJson } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { textOf } from "../../lib/thrown.ts";
import { type ComponentContext, MetadataError, type MetadataSchema } from "../component.ts";
import { type Postgres, connectPostgres, postgresFields } from "../connect/postgres.ts";

export const type = "configuration.postgresql";
export const aliases = ["configuration.postgres"];
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  ...postgresFields,
  table: {
    kind: "string",
    description: "The table, which must be there: columns key, value, version, metadata in this order.",
    required: true,
  },
  notifyChannel: {
    kind: "string",
    description:
      "Channel of the notifications; else each subscription names one as metadata pgNotifyChannel.",
    aliases: ["pgNotifyChannel"],
  },
} as const satisfies MetadataSchema;

const maxTableLength = 64;
const json = jsonFields((message) => new Error(message));

/** Rejects when the server cannot be reached or has no such table. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<ConfigurationStore> {
  const { metadata } = context;
  const { table } = metadata;
  if (!/^[a-z0-9./_]+$/.test(table) || table.length > maxTableLength)
    throw new MetadataError(
      "table",
      `metadata field "table": '${table}' must be at most ${maxTableLength} of a-z 0-9 . / _`,
    );
  const postgres = await connectPostgres(metadata, context);
  try {
    const text = "SELECT to_regclass($1) IS NOT NULL AS found";
    const { rows } = await postgres.run({ name: "", text }, [table]);
    if (rows[0]?.["found"] !== true)
      throw new Error(`postgreSQL configuration table '${table}' does not exist; create it`);
    return new PostgresConfiguration(postgres, context);
  } catch (error) {
    await postgres.close();
    throw error;
  }
}

class PostgresConfiguration implements ConfigurationStore {
  readonly #postgres: Postgres;
  readonly #context: ComponentContext<typeof metadataSchema>;

  constructor(postgres: Postgres, context: ComponentContext<typeof metadataSchema>) {
    this.#postgres = postgres;
    this.#context = context;
  }

  async get(
    keys: readonly string[],
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ConfigurationItem>> {
    signal.throwIfAborted();
    checkKeys(keys);
    // Dapr matches metadata of the request against columns in a way that no row ever meets.
    if (keys.length > 0 && Object.keys(metadata).length > 0) return new Map();
    const all = `SELECT * FROM ${this.#context.metadata.table}`;
    const text = keys.length === 0 ? all : `${all} WHERE key = ANY($1)`;
    const statement = { name: "", text, asLists: true } as const;
    const { rows } = await this.#postgres.run(statement, keys.length === 0 ? [] : [keys]);
    return latest(rows as unknown as readonly (readonly unknown[])[]);
  }

  async subscribe(
    keys: readonly string[],
    metadata: Metadata,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<ConfigurationSubscription> {
    signal.throwIfAborted();
    checkKeys(keys);
    const { log } = this.#context;
    const channel = this.#context.metadata.notifyChannel ?? metadata["pgNotifyChannel"] ?? "";
    if (!/^[A-Za-z_]\w{0,62}$/.test(channel))
      throw new Error(
        `'${channel}' is no notification channel; name one in the component's metadata notifyChannel, ` +
          "or in the request's metadata pgNotifyChannel",
      );
    const wanted = new Set(keys);
    let ended = false;
    const onPayload = (payload: string): void => {
      if (ended) return;
      try {
        const { key, item } = readPayload(payload);
        if (wanted.size === 0 || wanted.has(key)) onChange(key, item);
      } catch (error) {
        log.warn(`postgres: a notification on ${channel} cannot be used: ${textOf(error)}`);
      }
    };
    const listening = await this.#postgres.listen(channel, onPayload);
    return {
      stop() {
        ended = true;
        return listening.stop();
      },
    };
  }

  awaySinceMs(): number | undefined {
    return this.#postgres.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#postgres.close();
  }
}

function checkKeys(keys: readonly string[]): void {
  const wrong = keys.find((key) => !/^[a-zA-Z0-9./_]*$/.test(key));
  if (wrong !== undefined) throw new Error(`invalid key : '${wrong}'`);
}

/** Of several rows of a key the one with the highest number as its version, the first one of these. */
function latest(rows: readonly (readonly unknown[])[]): Map<string, ConfigurationItem> {
  const items = new Map<string, ConfigurationItem>();
  for (const [key, value, version, metadata] of rows) {
    const item = { value: textIn(value), version: textIn(version), metadata: textsIn(metadata) };
    const before = items.get(textIn(key));
    if (before === undefined || rankOf(item) > rankOf(before)) items.set(textIn(key), item);
  }
  return items;
}

function rankOf({ version }: ConfigurationItem): number {
  return /^[+-]?\d{1,18}$/.test(version) ? Number(version) : -1;
}

function textIn(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function textsIn(value: unknown): Metadata {
  const object: unknown = typeof value === "string" ? unmarshalJson(value) : value;
  if (object === null || typeof object !== "object") return {};
  return Object.fromEntries(Object.entries(object).map(([name, member]) => [name, textIn(member)]));
}

/** `{"data":{"key","value","version","metadata"}}`, names in any case. */
function readPayload(payload: string): { key: string; item: ConfigurationItem } {
  const { data } = json.fields(unmarshalJson(payload), "the payload");
  const { key, value, version, metadata } = json.fields(data, '"data"');
  const item = {
    value: json.text(value, '"value"'),
    version: json.text(version, '"version"'),
    metadata: json.texts(metadata, '"metadata"'),
  };
  return { key: json.text(key, '"key"'), item };
}
