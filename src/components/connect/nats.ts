/**
 * A connection to a NATS server for components: one of their own to a server that they name, another product to the
 * sidecar like any database, or that of the mesh.
 */
import { readFile } from "node:fs/promises";
import type { ConnectionOptions, Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { type Clock, destroySocket, type Mesh } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import type { MetadataSchema } from "../component.ts";
import { createReach } from "./reach.ts";

/** Who the client is, for every component with a server of its own. */
export const natsLoginFields = {
  jwt: { kind: "string", description: "User JWT.", secret: true },
  seedKey: { kind: "string", description: "Its seed.", secret: true },
} as const satisfies MetadataSchema;

export type NatsInit = {
  /** One URL or several by comma. */
  readonly url: string;
  /** Shown in the server's list of clients. */
  readonly name: string;
  /** User JWT and its seed; both or none. */
  readonly jwt: string | undefined;
  readonly seedKey: string | undefined;
  readonly token?: string | undefined;
  /** PEM or files; both or none. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

/** Message whose callbacks may not throw: `subscribe` of NatsLink sees to that. */
export type NatsMessage = Msg;

export type NatsLink = {
  readonly client: NatsConnection;
  /** A subject for answers to this client alone. */
  newInbox(): string;
  connected(): boolean;
  /** Unix ms; undefined while connected. */
  awaySinceMs(): number | undefined;
  /** Resolves while connected; rejects with an Error when it is not within `timeoutMs` or the signal is aborted. */
  ready(timeoutMs: number, signal?: AbortSignal): Promise<void>;
  /** Called whenever it is connected again. Returns the way to stop it. */
  onReturn(listener: () => void): () => void;
  close(): Promise<void>;
};

/** Silence for two of these ends a connection, ms. */
const pingMs = 5_000;
const reconnectMs = 500;
/** Calls that wait for a connection at once. */
const maxWaiting = 10_000;

/** Connects, and comes back for ever after an outage. Rejects when it cannot connect the first time. */
export async function connectNats(init: NatsInit): Promise<NatsLink> {
  const { connect } = await import("@nats-io/transport-node");
  const client = await connect({
    servers: init.url.split(",").map((part) => part.trim()),
    name: init.name,
    timeout: init.timeoutMs,
    maxReconnectAttempts: -1,
    reconnectTimeWait: reconnectMs,
    reconnectJitter: reconnectMs,
    pingInterval: pingMs,
    maxPingOut: 2,
    ignoreAuthErrorAbort: true,
    ...(await loginOf(init)),
  });
  return watched(client, await inboxes(client), init);
}

/** What is on its way to a subscription still comes; without a connection there is nothing, and nobody to ask. */
export async function endSubscription(subscription: Subscription, link: NatsLink): Promise<void> {
  if (subscription.isClosed()) return;
  if (!link.connected()) return subscription.unsubscribe();
  await subscription.drain().catch(() => {});
}

/** Unix ms since when the mesh has no connection; undefined while it has one. */
export function meshAwaySinceMs(mesh: Mesh): number | undefined {
  const { connected, sinceMs } = mesh.status();
  return connected ? undefined : sinceMs;
}

/** The mesh's own connection, which nobody but the mesh closes. Waits for it up to `timeoutMs`. */
export async function meshLink(mesh: Mesh, clock: Clock, timeoutMs: number): Promise<NatsLink> {
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(), timeoutMs);
  try {
    const client = await mesh.client(late.signal);
    const newInbox = await inboxes(client);
    return {
      client,
      newInbox,
      connected: () => mesh.status().connected,
      awaySinceMs: () => meshAwaySinceMs(mesh),
      ready: (waitMs, signal) => withinTime(clock, waitMs, signal, (limit) => mesh.ready(limit)),
      onReturn: (listener) => mesh.onStatus(({ connected }) => void (connected && listener())),
      close: async () => {},
    };
  } catch (error) {
    throw late.signal.aborted ? new Error(`NATS is away for ${timeoutMs} ms`, { cause: error }) : error;
  } finally {
    timer.cancel();
  }
}

/** Ends `wait` after a time with an Error that says so. */
async function withinTime(
  clock: Clock,
  waitMs: number,
  signal: AbortSignal | undefined,
  wait: (limit: AbortSignal) => Promise<void>,
): Promise<void> {
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(), waitMs);
  try {
    await wait(signal === undefined ? late.signal : AbortSignal.any([late.signal, signal]));
  } catch (error) {
    throw late.signal.aborted ? new Error(`nats: not connected for ${waitMs} ms`) : error;
  } finally {
    timer.cancel();
  }
}

async function loginOf({ jwt, seedKey, token, tlsCert, tlsKey }: NatsInit): Promise<ConnectionOptions> {
  const { jwtAuthenticator } = await import("@nats-io/transport-node");
  if ((jwt === undefined) !== (seedKey === undefined))
    throw new Error('metadata fields "jwt" and "seedKey" belong together; give both or none');
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new Error('metadata fields "tls_client_cert" and "tls_client_key" belong together; give both');
  if (jwt !== undefined) return { authenticator: jwtAuthenticator(jwt, new TextEncoder().encode(seedKey)) };
  if (tlsCert !== undefined) return { tls: { cert: await pem(tlsCert), key: await pem(tlsKey!) } };
  return token === undefined ? {} : { token };
}

function pem(text: string): Promise<string> {
  return text.includes("-----BEGIN") ? Promise.resolve(text) : readFile(text, "utf8");
}

/** Under the prefix that the connection may subscribe to. */
async function inboxes(client: NatsConnection): Promise<() => string> {
  const { createInbox } = await import("@nats-io/transport-node");
  const { inboxPrefix } = (client as { readonly options?: ConnectionOptions }).options ?? {};
  return () => createInbox(inboxPrefix);
}

function watched(client: NatsConnection, newInbox: () => string, init: NatsInit): NatsLink {
  const { clock, log } = init;
  const listeners = new Set<() => void>();
  const reach = createReach("nats", init);
  const follow = async (): Promise<void> => {
    for await (const status of client.status()) {
      if (status.type === "disconnect") {
        reach.lost(`lost ${status.server}`);
      } else if (status.type === "staleConnection") {
        // The client would wait for a frozen server to take its last bytes.
        destroySocket(client);
      } else if (status.type === "error") {
        log.warn(`nats: ${status.error.message}`);
      } else if (status.type === "reconnect") {
        reach.found();
        for (const listener of [...listeners]) listener();
      }
    }
  };
  void follow();
  return {
    client,
    newInbox,
    connected: () => reach.awaySinceMs() === undefined,
    awaySinceMs: () => reach.awaySinceMs(),
    async ready(timeoutMs, signal) {
      if (reach.awaySinceMs() === undefined) return;
      if (listeners.size >= maxWaiting) throw new Error(`nats: away, and ${maxWaiting} calls wait already`);
      const { promise: back, resolve } = Promise.withResolvers<void>();
      listeners.add(resolve);
      try {
        await withinTime(clock, timeoutMs, signal, (limit) => Promise.race([back, aborted(limit)]));
      } finally {
        listeners.delete(resolve);
      }
    },
    onReturn(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      reach.close();
      return client.close();
    },
  };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }),
  );
}
