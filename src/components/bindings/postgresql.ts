/** Statements of SQL for PostgreSQL. */
import type {
  Binding,
  BindingMetadata,
  BindingRequest,
  BindingResponse,
} from "../../blocks/bindings/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectPostgres, type Postgres, postgresFields } from "../connect/postgres.ts";
import { goJson } from "../../lib/go-json.ts";

export const type = "bindings.postgresql";
export const aliases = ["bindings.postgres"];
export const versions = ["v1"];
export const capabilities = ["OUTPUT_BINDING"];
export const metadataSchema = postgresFields satisfies MetadataSchema;

/** Rejects when the server cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { metadata, clock } = context;
  const postgres = await connectPostgres(metadata, context);
  let open = true;
  const end = async (): Promise<void> => {
    if (!open) return;
    open = false;
    await postgres.close();
  };
  return {
    operations: ["exec", "query", "close"],
    async invoke(request) {
      if (request.operation === "close") {
        await end();
        return undefined;
      }
      if (!open)
        throw new Error("the connection was closed by operation close; restart the sidecar to open it");
      const startMs = clock.nowMs();
      const { data, metadata: told } = await run(postgres, request);
      return { data, metadata: { ...told, ...timing(startMs, clock.nowMs()) } };
    },
    awaySinceMs: () => postgres.awaySinceMs(),
    close: end,
  };
}

async function run(postgres: Postgres, { operation, metadata }: BindingRequest): Promise<BindingResponse> {
  const text = metadata["sql"] ?? "";
  if (text === "") throw new Error("required metadata not set: sql");
  const statement = { name: "", text, asLists: true as const };
  const { rows, count } = await postgres.run(statement, paramsOf(metadata));
  const told = { operation, sql: text };
  if (operation === "exec")
    return { data: new Uint8Array(), metadata: { ...told, "rows-affected": String(count) } };
  return { data: Buffer.from(goJson(rows)), metadata: told };
}

function paramsOf(metadata: BindingMetadata): unknown[] {
  const text = metadata["params"];
  if (text === undefined || text === "") return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error('invalid metadata property params: write a JSON array, e.g. ["a", 1]', { cause });
  }
  if (!Array.isArray(value))
    throw new Error('invalid metadata property params: write a JSON array, e.g. ["a", 1]');
  return value as unknown[];
}

function timing(startMs: number, endMs: number): Record<string, string> {
  const iso = (ms: number): string => new Date(ms).toISOString();
  return { "start-time": iso(startMs), "end-time": iso(endMs), duration: `${endMs - startMs}ms` };
}
