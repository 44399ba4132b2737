/**
 * Who is alive: one entry per instance in a memory bucket, renewed while the instance lives and gone soon after.
 * Calls do not need it (a queue group is the truth); it tells "no such app" from "nobody answered", and serves
 * `status`.
 */
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { textOf } from "./errors.ts";
import type { MeshIdentity, PresenceEntry, Table, TableKey, Unready } from "./types.ts";

/** An entry lives this long after its last renewal, seconds. */
const ttlSeconds = 15;
const renewMs = 5_000;
/** A leaving participant waits this long for its entry to go, ms; without that it goes by itself. */
const withdrawMs = 2_000;
/** Entries read by one listing. */
const maxListed = 10_000;
const recordVersion = 1;

export class Presence {
  readonly #table: Table;
  readonly #connection: MeshConnection;
  readonly #identity: MeshIdentity;
  readonly #about: Readonly<Record<string, unknown>>;
  readonly #leaving = new AbortController();
  #record: Buffer = Buffer.alloc(0);
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
    this.#about = { v: recordVersion, ...about, startedAtMs };
  }

  /** Writes the entry and keeps it alive; a lost server or bucket is a reason to try again, never to fail. */
  async announce(unready: Unready | undefined): Promise<void> {
    if (this.#leaving.signal.aborted) return;
    // JSON, not msgpack: operators read it with `nats kv get`.
    const record = Buffer.from(JSON.stringify({ ...this.#about, ...unready }));
    if (this.#record.equals(record)) return;
    this.#record = record;
    if (this.#timer === undefined) this.#renew();
    await this.#write("warn");
  }

  #renew(): void {
    const renew = (): void => {
      if (this.#connection.connected) void this.#write("debug");
    };
    this.#timer = this.#connection.settings.clock.setInterval(renew, renewMs);
    this.#off = this.#connection.onChange((connected) => connected && renew());
  }

  /** Removes the entry; best effort within the connection's state. */
  async withdraw(): Promise<void> {
    if (this.#timer === undefined) return;
    this.#timer.cancel();
    this.#off?.();
    this.#timer = undefined;
    // A renewal that is repeated after the delete would bring the entry back.
    this.#leaving.abort();
    if (!this.#connection.connected) return;
    const limit = new AbortController();
    const timer = this.#connection.settings.clock.setTimeout(() => limit.abort(), withdrawMs);
    await this.#table.delete(this.#key(), { signal: limit.signal }).catch(() => {});
    timer.cancel();
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

  async #write(level: "debug" | "warn"): Promise<void> {
    try {
      await this.#table.put(this.#key(), this.#record, { ttlSeconds, signal: this.#leaving.signal });
    } catch (error) {
      const { log } = this.#connection.settings;
      if (!this.#leaving.signal.aborted)
        log(level, `presence not written, trying again soon: ${textOf(error)}`);
    }
  }
}

/** Entries of other versions or shapes are left out: a listing must survive what others write. */
function readEntry(key: TableKey, value: Uint8Array | undefined): PresenceEntry[] {
  const [namespace, app, instance] = key;
  if (value === undefined || namespace === undefined || app === undefined || instance === undefined)
    return [];
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
        ...readUnready(record),
      },
    ];
  } catch {
    return [];
  }
}

function readUnready({ state, at }: Record<string, unknown>): { unready?: Unready } {
  return state === "starting" || state === "ill" ? { unready: { state, at: String(at) } } : {};
}
