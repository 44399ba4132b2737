/**
 * Who is alive: one entry per instance in a memory bucket, renewed while the instance lives and gone soon after.
 * Calls do not need it (a queue group is the truth); it tells "no such app" from "nobody answered", and serves `status`.
 */
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import type { MeshIdentity, PresenceEntry, Table, TableKey } from "./types.ts";

/** An entry lives this long after its last renewal, seconds. */
const ttlSeconds = 15;
const renewMs = 5_000;
/** Entries read by one listing. */
const maxListed = 10_000;
const recordVersion = 1;

export class Presence {
  readonly #table: Table;
  readonly #connection: MeshConnection;
  readonly #identity: MeshIdentity;
  readonly #record: Buffer;
  #timer: Timer | undefined;
  #off: (() => void) | undefined;

  constructor(
    table: Table,
    connection: MeshConnection,
    identity: MeshIdentity,
    about: { host: string; pid: number; version: string },
  ) {
    this.#table = table;
    this.#connection = connection;
    this.#identity = identity;
    const startedAtMs = connection.settings.clock.nowMs();
    // JSON, not msgpack: operators read it with `nats kv get`.
    this.#record = Buffer.from(JSON.stringify({ v: recordVersion, ...about, startedAtMs }));
  }

  /** Writes the entry and keeps it alive; a lost server or bucket is a reason to try again, never to fail. */
  async announce(): Promise<void> {
    if (this.#timer !== undefined) return;
    const { clock, log } = this.#connection.settings;
    const renew = (): void => {
      if (!this.#connection.connected) return;
      this.#write().catch((error: unknown) => log("debug", `presence not renewed: ${String(error)}`));
    };
    this.#timer = clock.setInterval(renew, renewMs);
    this.#off = this.#connection.onChange((connected) => connected && renew());
    await this.#write();
  }

  /** Removes the entry; best effort within the connection's state. */
  async withdraw(): Promise<void> {
    if (this.#timer === undefined) return;
    this.#timer.cancel();
    this.#off?.();
    this.#timer = undefined;
    if (this.#connection.connected) await this.#table.delete(this.#key()).catch(() => {});
  }

  async list(filter?: { namespace: string; app: string }): Promise<PresenceEntry[]> {
    const prefix = filter === undefined ? [] : [filter.namespace, filter.app];
    const keys = await this.#table.list(prefix, maxListed);
    const records = await this.#table.getMany(keys);
    return keys.flatMap((key, i) => readEntry(key, records[i]?.value));
  }

  #key(): TableKey {
    return [this.#identity.namespace, this.#identity.app, this.#identity.instance];
  }

  async #write(): Promise<void> {
    await this.#table.put(this.#key(), this.#record, { ttlSeconds });
  }
}

/** Entries of other versions or shapes are left out: a listing must survive what others write. */
function readEntry(key: TableKey, value: Uint8Array | undefined): PresenceEntry[] {
  const [namespace, app, instance] = key;
  if (value === undefined || namespace === undefined || app === undefined || instance === undefined) return [];
  try {
    const record = JSON.parse(Buffer.from(value).toString("utf8")) as Record<string, unknown>;
    if (record["v"] !== recordVersion) return [];
    return [
      {
        namespace,
        app,
        instance,
        host: String(record["host"]),
        pid: Number(record["pid"]),
        startedAtMs: Number(record["startedAtMs"]),
        version: String(record["version"]),
      },
    ];
  } catch {
    return [];
  }
}
