/**
 * The HTTP/2 connection to a gRPC app: dialled at the first call and again whenever it is gone, shared by all calls;
 * further ones when the app takes no more streams on it. Dead peers are found by TCP keepalive, because gRPC servers
 * end connections that ping more often than they like.
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type SecureClientSessionOptions,
} from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Clock } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import { UnsentBytes } from "../lib/http2-unsent.ts";
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
/** Connections at once, for an app that allows few streams on each. */
const maxSessions = 100;
/** Largest header block the app may answer, bytes. */
const maxHeaderBytes = 256 * 1024;

export type GrpcAddress = {
  readonly host: string;
  readonly port: number;
  /** TLS 1.2 or later; the certificate is not verified, as with Dapr. */
  readonly tls: boolean;
};

export class GrpcSessions {
  readonly #address: GrpcAddress;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Open streams by session. */
  readonly #sessions = new Map<ClientHttp2Session, number>();
  readonly #unsent = new UnsentBytes();
  #dialling: Promise<void> | undefined;
  #closed = false;

  constructor(address: GrpcAddress, clock: Clock, log: Log) {
    this.#address = address;
    this.#clock = clock;
    this.#log = log;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** A session that takes one more stream; undefined when one must be dialled first. */
  free(): ClientHttp2Session | undefined {
    let least: ClientHttp2Session | undefined;
    let leastStreams = Number.POSITIVE_INFINITY;
    for (const [session, streams] of this.#sessions) {
      // A GOAWAY of the app closes the session for new streams.
      if (session.closed || session.destroyed) continue;
      if (streams < maxStreamsOf(session)) return session;
      if (streams < leastStreams) [least, leastStreams] = [session, streams];
    }
    // Streams above the app's limit wait inside the session for a place.
    return this.#sessions.size < maxSessions ? undefined : least;
  }

  /** Resolves when another session is there for all who wait. Rejects with GrpcStatusError Unavailable. */
  dial(): Promise<void> {
    this.#dialling ??= this.#dial().finally(() => (this.#dialling = undefined));
    return this.#dialling;
  }

  /** Counts a stream until it closes. */
  track(session: ClientHttp2Session, stream: ClientHttp2Stream): void {
    this.#sessions.set(session, (this.#sessions.get(session) ?? 0) + 1);
    stream.once("close", () => {
      if (this.#unsent.isTooMuch(session, stream)) this.retire(session);
      const streams = this.#sessions.get(session);
      if (streams === undefined) return;
      this.#sessions.set(session, streams - 1);
      // Of those that were dialled for a rush, one stays.
      if (streams === 1 && this.#sessions.size > 1) this.retire(session);
    });
  }

  /** Never use this session for a new stream again; streams that run on it go on. */
  retire(session: ClientHttp2Session): void {
    this.#sessions.delete(session);
    if (!session.closed) session.close();
  }

  /** Ends all streams at once. */
  close(): void {
    this.#closed = true;
    for (const session of this.#sessions.keys()) session.destroy();
    this.#sessions.clear();
  }

  async #dial(): Promise<void> {
    if (this.#closed) throw unavailable("the channel to the app is closed");
    const socket = await this.#connect();
    const session = openSession(socket, authorityOf(this.#address), this.#address.tls);
    session.on("error", (error) => this.#log.debug(`gRPC connection to the app ended: ${error.message}`));
    session.once("close", () => this.#sessions.delete(session));
    await this.#greeted(session);
    if (this.#closed) {
      session.destroy();
      throw unavailable("the channel to the app is closed");
    }
    this.#sessions.set(session, 0);
  }

  /** The app's settings say how many streams it takes; without them it speaks no HTTP/2. */
  #greeted(session: ClientHttp2Session): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => {
        limit.cancel();
        session.destroy();
        reject(unavailable(`connection error: desc = "error reading server preface: ${why}"`));
      };
      const limit = this.#clock.setTimeout(() => fail("the app did not answer in time"), dialTimeoutMs);
      session.once("remoteSettings", () => {
        limit.cancel();
        session.off("close", onClose);
        resolve();
      });
      let why = "EOF";
      session.once("error", (error) => (why = error.message));
      const onClose = (): void => fail(why);
      session.once("close", onClose);
    });
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

function maxStreamsOf({ remoteSettings }: ClientHttp2Session): number {
  return Math.max(1, remoteSettings.maxConcurrentStreams ?? Number.POSITIVE_INFINITY);
}

/** `host:port`, with IPv6 hosts in brackets. */
export function authorityOf({ host, port }: GrpcAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

export function unavailable(message: string): GrpcStatusError {
  return new GrpcStatusError(GrpcCode.Unavailable, message);
}
