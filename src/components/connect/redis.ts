/**
 * A connection to Redis: one server, a cluster, or what sentinels name, behind one way to send a command. It comes
 * back by itself after an outage; no command waits longer than its time.
 */
import type { RedisClusterOptions } from "redis";
import type { Clock } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import { MetadataError, type MetadataValues } from "../component.ts";
import { withDeadline } from "./deadline.ts";
import { createReach } from "./reach.ts";
import type { redisFields } from "./redis-fields.ts";

export type RedisMetadata = MetadataValues<typeof redisFields>;

/** Text and bytes of a reply come as Buffers. */
export type RedisReply = Buffer | number | null | RedisReply[];

export type Redis = {
  /** `key` chooses the node of a cluster. A read is repeated when its connection broke. */
  command(
    key: string,
    kind: "read" | "write",
    args: readonly (string | Buffer)[],
    signal?: AbortSignal,
  ): Promise<RedisReply>;
  readonly isCluster: boolean;
  /** Unix ms; undefined while connected. Only of one server: clusters and sentinels have their own ways to go on. */
  awaySinceMs(): number | undefined;
  /**
   * Calls back with the channel of each message, also after an outage; what is sent during one is lost. Resolves with
   * the way to end it. One more connection serves all of them. Rejects for a cluster, whose nodes tell other things.
   * `onReturn` is called when the server is back after an outage, perhaps without settings that it was given.
   */
  listen(
    kind: "channel" | "pattern",
    name: string,
    onMessage: (channel: string) => void,
    onReturn?: () => void,
  ): Promise<() => Promise<void>>;
  close(): Promise<void>;
};

export type RedisInit = {
  readonly metadata: RedisMetadata;
  readonly clock: Clock;
  readonly log: Log;
  /** Ends the first attempts to connect. */
  readonly signal: AbortSignal;
};

type Address = { readonly host: string; readonly port: number };

/** What the three kinds of client of the library have in common. */
type Client = {
  connect(): Promise<unknown>;
  destroy(): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  on(event: "ready", listener: () => void): unknown;
};

type OnMessage = (message: string, channel: string) => void;

/** What hears messages: a second connection to one server, or the client of the sentinels itself. */
type Listener = Client & {
  subscribe(channel: string, listener: OnMessage): Promise<unknown>;
  unsubscribe(channel: string, listener: OnMessage): Promise<unknown>;
  pSubscribe(pattern: string, listener: OnMessage): Promise<unknown>;
  pUnsubscribe(pattern: string, listener: OnMessage): Promise<unknown>;
};

/** `onReturn` is called when it is connected again. */
type OpenListener = (onReturn: () => void) => Promise<Listener>;

type Send = (key: string, isRead: boolean, args: readonly (string | Buffer)[]) => Promise<RedisReply>;

/** Commands that may wait for a connection or an answer at once. */
const maxWaiting = 10_000;
/** A server that answers nothing for so long, pings included, is left. */
const silenceMs = 10_000;
const pingMs = 4_000;
const attemptsAtStart = 3;
/** What stands for no limit, ms. */
const noLimitMs = 60_000;

/** Connects. Rejects when it cannot, with the reason of the last attempt. */
export async function connectRedis(given: RedisInit): Promise<Redis> {
  const init = { ...given, metadata: withSaneTimes(given.metadata) };
  const { metadata, clock, signal } = init;
  if (metadata.useEntraID) throw new Error('metadata field "useEntraID" is not supported; use redisPassword');
  const addresses = readAddresses(metadata);
  let started = false;
  const { client, send, openListener } = await makeClient(metadata, addresses, () => started);
  let lastError: Error | undefined;
  const where = addresses.map(({ host, port }) => `${host}:${port}`).join(",");
  const reach = createReach(`redis at ${where}`, init);
  client.on("error", (error) => {
    lastError = error;
    if (started) reach.lost(error.message);
  });
  client.on("ready", () => reach.found());
  try {
    await withDeadline(client.connect(), `connecting to redis at ${where}`, 60_000, clock, signal);
    await withDeadline(send("", true, ["PING"]), "PING", metadata.readTimeout, clock, signal);
  } catch (error) {
    destroy(client);
    const cause = lastError ?? (error as Error);
    throw new Error(`redis: error connecting to redis at ${where}: ${cause.message}`, { cause: error });
  }
  started = true;
  const ears = new Ears(openListener, init);
  return {
    listen: (kind, name, onMessage, onReturn) => ears.listen(kind, name, onMessage, onReturn),
    isCluster: metadata.redisType === "cluster",
    awaySinceMs: () => reach.awaySinceMs(),
    command: (key, kind, args, callSignal) =>
      repeated(init, kind, () => send(key, kind === "read", args), callSignal),
    async close() {
      ears.close();
      reach.close();
      destroy(client);
    },
  };
}

/** As Go's client reads them: 0 is the usual time and -1 none, for which we take a long one. */
function withSaneTimes(metadata: RedisMetadata): RedisMetadata {
  const sane = (ms: number, usualMs: number): number => (ms > 0 ? ms : ms === 0 ? usualMs : noLimitMs);
  return {
    ...metadata,
    dialTimeout: sane(metadata.dialTimeout, 5_000),
    readTimeout: sane(metadata.readTimeout, 3_000),
  };
}

/** The connection that hears messages, opened when the first is asked for. */
class Ears {
  readonly #open: OpenListener | undefined;
  readonly #init: RedisInit;
  readonly #onReturn = new Set<() => void>();
  #listener: Promise<Listener> | undefined;

  constructor(open: OpenListener | undefined, init: RedisInit) {
    this.#open = open;
    this.#init = init;
  }

  async listen(
    kind: "channel" | "pattern",
    name: string,
    onMessage: (channel: string) => void,
    onReturn: () => void = () => {},
  ): Promise<() => Promise<void>> {
    if (this.#open === undefined)
      throw new Error("the nodes of a redis cluster tell their changes only themselves; name one server");
    this.#listener ??= this.#connect(this.#open);
    const listener = await this.#listener;
    const heard: OnMessage = (_message, channel) => onMessage(channel);
    const within = (work: Promise<unknown>): Promise<unknown> =>
      withDeadline(work, "redis", this.#init.metadata.readTimeout, this.#init.clock);
    const isChannel = kind === "channel";
    await within(isChannel ? listener.subscribe(name, heard) : listener.pSubscribe(name, heard));
    this.#onReturn.add(onReturn);
    return async () => {
      this.#onReturn.delete(onReturn);
      await within(isChannel ? listener.unsubscribe(name, heard) : listener.pUnsubscribe(name, heard));
    };
  }

  close(): void {
    this.#listener?.then(destroy, () => {});
  }

  async #connect(open: OpenListener): Promise<Listener> {
    const { metadata, clock } = this.#init;
    const returned = (): void => {
      for (const told of this.#onReturn) told();
    };
    try {
      return await withDeadline(open(returned), "connecting to redis", metadata.dialTimeout, clock);
    } catch (error) {
      this.#listener = undefined;
      throw error;
    }
  }
}

function destroy(client: Client): void {
  try {
    client.destroy();
  } catch {
    // It was closed already.
  }
}

/** A write is sent once: after a broken connection nobody knows whether it was done. */
async function repeated(
  { metadata, clock }: RedisInit,
  kind: "read" | "write",
  send: () => Promise<RedisReply>,
  signal: AbortSignal | undefined,
): Promise<RedisReply> {
  const repetitions = kind === "read" ? Math.max(0, metadata.redisMaxRetries) : 0;
  for (let done = 0; ; done++) {
    try {
      return await withDeadline(send(), "redis", metadata.readTimeout, clock, signal);
    } catch (error) {
      if (done >= repetitions || !isBroken(error)) throw error;
      const { redisMinRetryInterval: minMs, redisMaxRetryInterval: maxMs } = metadata;
      await clock.sleep(Math.max(0, Math.min(minMs * 2 ** done, maxMs)), signal);
    }
  }
}

function isBroken(error: unknown): boolean {
  return error instanceof Error && /^(Socket|Disconnects|ConnectionTimeout)/.test(error.constructor.name);
}

async function makeClient(
  metadata: RedisMetadata,
  addresses: readonly Address[],
  isStarted: () => boolean,
): Promise<{ client: Client; send: Send; openListener?: OpenListener }> {
  const redis = await import("redis");
  const options = clientOptions(metadata, isStarted);
  const commandOptions = { typeMapping: { [redis.RESP_TYPES.BLOB_STRING]: Buffer } };
  if (metadata.redisType === "cluster") {
    const rootNodes = addresses.map((address) => ({ ...options, socket: { ...options.socket, ...address } }));
    const client = redis.createCluster({ rootNodes, defaults: options, RESP: 2, commandOptions });
    const send: Send = (key, isRead, args) =>
      client.sendCommand(key === "" ? undefined : key, isRead, [...args], commandOptions);
    return { client, send };
  }
  if (metadata.failover || metadata.sentinelMasterName !== undefined) {
    const { sentinelUsername: username, sentinelPassword: password } = metadata;
    const client = redis.createSentinel({
      name: metadata.sentinelMasterName ?? "mymaster",
      sentinelRootNodes: [...addresses],
      nodeClientOptions: options,
      sentinelClientOptions: {
        socket: options.socket,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password }),
      },
      RESP: 2,
      commandOptions,
    });
    return {
      client,
      send: (_key, isRead, args) => client.sendCommand(isRead, [...args], commandOptions),
      async openListener(onReturn) {
        client.on("topology-change", onReturn);
        return client as unknown as Listener;
      },
    };
  }
  const socket = { ...options.socket, ...addresses[0]! };
  const client = redis.createClient({ ...options, socket, RESP: 2, commandOptions });
  return {
    client,
    send: (_key, _isRead, args) => client.sendCommand(args, commandOptions),
    async openListener(onReturn) {
      const listener = client.duplicate();
      // What it tells, the other connection to the same server tells too.
      listener.on("error", () => {});
      try {
        await listener.connect();
        listener.on("ready", onReturn);
        return listener;
      } catch (error) {
        destroy(listener);
        throw error;
      }
    },
  };
}

type ClusterNodeOptions = NonNullable<RedisClusterOptions["defaults"]>;
type NodeOptions = ClusterNodeOptions & { readonly socket: NonNullable<ClusterNodeOptions["socket"]> };

function clientOptions(metadata: RedisMetadata, isStarted: () => boolean): NodeOptions {
  const { redisUsername, redisPassword, redisDB, redisType } = metadata;
  const maxWaitMs = Math.max(50, metadata.redisMaxRetryInterval);
  return {
    ...(redisUsername === undefined ? {} : { username: redisUsername }),
    ...(redisPassword === undefined ? {} : { password: redisPassword }),
    ...(redisDB === 0 || redisType === "cluster" ? {} : { database: redisDB }),
    commandsQueueMaxLength: maxWaiting,
    pingInterval: pingMs,
    maintNotifications: "disabled",
    socket: {
      connectTimeout: metadata.dialTimeout,
      socketTimeout: silenceMs,
      reconnectStrategy: (retries: number, cause: Error) =>
        !isStarted() && retries >= attemptsAtStart
          ? cause
          : Math.min(50 * 2 ** Math.min(retries, 10), maxWaitMs),
      ...tlsOptions(metadata),
    },
  };
}

function tlsOptions(metadata: RedisMetadata): object {
  if (!metadata.enableTLS) return {};
  const { clientCert, clientKey, insecureSkipTLSVerify } = metadata;
  if ((clientCert === undefined) !== (clientKey === undefined))
    throw new Error('metadata fields "clientCert" and "clientKey" belong together; give both or none');
  return {
    tls: true,
    rejectUnauthorized: !insecureSkipTLSVerify,
    ...(clientCert === undefined ? {} : { cert: clientCert, key: clientKey }),
  };
}

function readAddresses({ redisHost, redisPort, redisType, failover }: RedisMetadata): Address[] {
  const parts = redisHost.split(",").map((part) => part.trim());
  const addresses = parts.filter((part) => part !== "").map((part) => readAddress(part, redisPort));
  if (addresses.length > 1 && redisType === "node" && !failover)
    throw new Error(
      'metadata field "redisHost" names several servers; set redisType: cluster, or failover: true',
    );
  return addresses;
}

function readAddress(text: string, redisPort: number | undefined): Address {
  const match = /^(\[[^\]]+\]|[^:{}\s]+)(?::(\d+))?$/.exec(text);
  if (match === null) {
    const hint = /[{}]/.test(text) ? "; a template is written {namespace}, {appID}, {podName} or {uuid}" : "";
    throw new MetadataError(
      "redisHost",
      `metadata field "redisHost": '${text}' is neither host nor host:port${hint}`,
    );
  }
  const own = match[2] === undefined ? undefined : Number(match[2]);
  if (own !== undefined && redisPort !== undefined && own !== redisPort)
    throw new Error(
      `metadata fields "redisHost" (${text}) and "redisPort" (${redisPort}) name different ports`,
    );
  return { host: match[1]!.replace(/^\[|\]$/g, ""), port: own ?? redisPort ?? 6379 };
}
