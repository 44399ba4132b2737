/**
 * The one HTTP/2 connection to a gRPC app: dialled at the first call and again whenever it is gone, shared by all
 * calls. Dead peers are found by TCP keepalive, because gRPC servers end connections that ping more often than they
 * like.
 */
import { type ClientHttp2Session, connect, type SecureClientSessionOptions } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Clock } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import type { Log } from "../telemetry/log.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import { netErrorText } from "./net-error.ts";

/** The app may take this long to accept a connection, TLS included. */
const dialTimeoutMs = 20_000;
/** An idle connection is probed after this time. */
const keepAliveMs = 30_000;
/** What the app may send ahead, bytes: on one stream, and on all together. */
const streamWindowBytes = 256 * 1024;
const sessionWindowBytes = 4 * 1024 * 1024;
/** Memory that streams may queue before new ones are refused, MB. */
const maxSessionMb = 512;
/** Largest header block the app may answer, bytes. */
const maxHeaderBytes = 256 * 1024;

export type GrpcAddress = {
  readonly host: string;
  readonly port: number;
  /** TLS 1.2 or later; the certificate is not verified, as with Dapr. */
  readonly tls: boolean;
};

export class GrpcSession {
  readonly #address: GrpcAddress;
  readonly #clock: Clock;
  readonly #log: Log;
  #live: ClientHttp2Session | undefined;
  #dialling: Promise<ClientHttp2Session> | undefined;
  #closed = false;

  constructor(address: GrpcAddress, clock: Clock, log: Log) {
    this.#address = address;
    this.#clock = clock;
    this.#log = log;
  }

  /** A session that takes new streams. Rejects with GrpcStatusError Unavailable. */
  get(): ClientHttp2Session | Promise<ClientHttp2Session> {
    const live = this.#live;
    // A GOAWAY of the app closes the session for new streams.
    if (live !== undefined && !live.closed && !live.destroyed) return live;
    this.#dialling ??= this.#dial().finally(() => (this.#dialling = undefined));
    return this.#dialling;
  }

  /** Never use this session for a new stream again; streams that run on it go on. */
  retire(session: ClientHttp2Session): void {
    if (this.#live === session) this.#live = undefined;
    if (!session.closed) session.close();
  }

  /** Ends all streams at once. */
  close(): void {
    this.#closed = true;
    this.#live?.destroy();
    this.#live = undefined;
  }

  async #dial(): Promise<ClientHttp2Session> {
    if (this.#closed) throw unavailable("the channel to the app is closed");
    const socket = await this.#connect();
    if (this.#closed) {
      socket.destroy();
      throw unavailable("the channel to the app is closed");
    }
    const session = openSession(socket, authorityOf(this.#address), this.#address.tls);
    session.on("error", (error) => this.#log.debug(`gRPC connection to the app ended: ${error.message}`));
    session.once("close", () => {
      if (this.#live === session) this.#live = undefined;
    });
    this.#live = session;
    return session;
  }

  #connect(): Promise<Socket> {
    const { host, port, tls } = this.#address;
    const secure = {
      host,
      port,
      rejectUnauthorized: false,
      minVersion: "TLSv1.2",
      ALPNProtocols: ["h2"],
    } as const;
    return new Promise((resolve, reject) => {
      const socket = tls ? connectTls(secure) : connectTcp({ host, port });
      socket.setNoDelay(true);
      socket.setKeepAlive(true, keepAliveMs);
      const limit = this.#clock.setTimeout(() => {
        socket.destroy(Object.assign(new Error("the app did not accept in time"), { code: "ETIMEDOUT" }));
      }, dialTimeoutMs);
      const failed = (error: Error): void => {
        limit.cancel();
        const text = `transport: Error while dialing: ${netErrorText(error, host, port)}`;
        reject(unavailable(`connection error: desc = "${text}"`));
      };
      socket.once("error", failed);
      socket.once(tls ? "secureConnect" : "connect", () => {
        limit.cancel();
        socket.off("error", failed);
        resolve(socket);
      });
    });
  }
}

function openSession(socket: Socket, authority: string, tls: boolean): ClientHttp2Session {
  const options: SecureClientSessionOptions & { readonly strictSingleValueFields: boolean } = {
    createConnection: () => socket,
    maxSessionMemory: maxSessionMb,
    maxHeaderListPairs: 1_000,
    strictSingleValueFields: false,
    settings: { initialWindowSize: streamWindowBytes, maxHeaderListSize: maxHeaderBytes, enablePush: false },
  };
  const session = connect(`${tls ? "https" : "http"}://${authority}`, options);
  session.once("connect", () => session.setLocalWindowSize(sessionWindowBytes));
  return session;
}

/** `host:port`, with IPv6 hosts in brackets. */
export function authorityOf({ host, port }: GrpcAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

export function unavailable(message: string): GrpcStatusError {
  return new GrpcStatusError(GrpcCode.Unavailable, message);
}
