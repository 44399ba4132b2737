/**
 * A connection to a NATS server that a component names: another product to the sidecar, like any database. The mesh
 * has its own.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { Log } from "../../telemetry/log.ts";

export type NatsInit = {
  /** One URL or several by comma. */
  readonly url: string;
  /** Shown in the server's list of clients. */
  readonly name: string;
  /** User JWT and its seed; both or none. */
  readonly jwt: string | undefined;
  readonly seedKey: string | undefined;
  readonly timeoutMs: number;
  readonly log: Log;
};

/** Connects, and comes back for ever after an outage. Rejects when it cannot connect the first time. */
export async function connectNats(init: NatsInit): Promise<NatsConnection> {
  const { url, name, jwt, seedKey, timeoutMs, log } = init;
  if ((jwt === undefined) !== (seedKey === undefined))
    throw new Error('metadata fields "jwt" and "seedKey" belong together; give both or none');
  const { connect, jwtAuthenticator } = await import("@nats-io/transport-node");
  const login =
    jwt === undefined ? {} : { authenticator: jwtAuthenticator(jwt, new TextEncoder().encode(seedKey)) };
  const connection = await connect({
    servers: url.split(",").map((part) => part.trim()),
    name,
    timeout: timeoutMs,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 500,
    ...login,
  });
  void watch(connection, log);
  return connection;
}

async function watch(connection: NatsConnection, log: Log): Promise<void> {
  for await (const { type } of connection.status()) {
    if (type === "disconnect") log.warn("nats: the server is away; connecting again");
    else if (type === "reconnect") log.info("nats: connected again");
  }
}
