/**
 * Calls of etcd over gRPC, on one HTTP/2 connection to one of several members. A member that does not answer is
 * left for the next one; no call waits longer than its time.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { SecureContextOptions } from "node:tls";
import type { Clock } from "../../../mesh/index.ts";
import { FrameReader, encodeFrame } from "../../lib/grpc-frames.ts";
import { percentDecode } from "../../lib/grpc-wire.ts";
import type { Log } from "../../telemetry/log.ts";
import { NoAnswer, withDeadline } from "./deadline.ts";
import { encodeRange } from "./etcd-wire.ts";
import { createReach } from "./reach.ts";

export type EtcdInit = {
  /** `host:port` or URLs. */
  readonly endpoints: readonly string[];
  /** Undefined = in clear. */
  readonly tls: Pick<SecureContextOptions, "ca" | "cert" | "key"> | undefined;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

export type Etcd = {
  /** Sends `request` to `/etcdserverpb.<method>`. A read is sent again when its connection breaks. */
  call(
    method: "KV/Range" | "KV/Txn" | "Lease/LeaseGrant" | "Lease/LeaseRevoke",
    kind: "read" | "write",
    request: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array>;
  /**
   * Messages of a stream, which begins with `request` and never ends by itself: it throws when the connection breaks or
   * the member is silent.
   */
  stream(method: "Watch/Watch", request: Uint8Array, signal: AbortSignal): AsyncIterableIterator<Uint8Array>;
  /** Unix ms since when no member answers; undefined while one does. */
  awaySinceMs(): number | undefined;
  close(): void;
};

/** A stream's connection is tried out so often, ms. */
const pingMs = 5_000;
const maxMessageBytes = 64 * 1024 * 1024;

/** A gRPC status that is not OK. */
export class EtcdError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = "EtcdError";
    this.code = code;
  }
}

/** The request was not, or not surely, taken by a member. `sent` = it may have been. */
class BrokenConnection extends NoAnswer {
  readonly sent: boolean;

  constructor(cause: Error, sent: boolean) {
    super(cause.message, { cause });
    this.sent = sent;
  }
}

/** Does not connect: the first call does. */
export function openEtcd(init: EtcdInit): Etcd {
  return new EtcdConnection(init);
}

class EtcdConnection implements Etcd {
  readonly #init: EtcdInit;
  readonly #urls: readonly string[];
  readonly #reach;
  /** Index of the member in use. */
  #member = 0;
  #session: ClientHttp2Session | undefined;
  /** Calls under way. */
  #running = 0;
  #closed = false;
  /** Why a connection ended, for the calls that were under way. */
  readonly #failures = new WeakMap<ClientHttp2Session, Error>();

  constructor(init: EtcdInit) {
    this.#init = init;
    const scheme = init.tls === undefined ? "http" : "https";
    this.#urls = init.endpoints.map((endpoint) =>
      /^https?:\/\//.test(endpoint) ? endpoint : `${scheme}://${endpoint}`,
    );
    this.#reach = createReach("etcd", init, () => this.#probe());
  }

  async call(
    method: Parameters<Etcd["call"]>[0],
    kind: "read" | "write",
    request: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { timeoutMs, clock } = this.#init;
    this.#running++;
    const work = this.#attempts(`/etcdserverpb.${method}`, kind, request).finally(() => this.#running--);
    const used = this.#session;
    try {
      const answer = await withDeadline(work, "etcd", timeoutMs, clock, signal);
      this.#reach.found();
      return answer;
    } catch (error) {
      if (error instanceof NoAnswer) this.#reach.lost(error.message);
      else if (error instanceof EtcdError) this.#reach.found();
      // A member that is silent for so long is not asked again before the others.
      if (!(error instanceof EtcdError) && !signal.aborted && used !== undefined) this.#leave(used);
      throw error;
    }
  }

  async *stream(
    method: "Watch/Watch",
    request: Uint8Array,
    signal: AbortSignal,
  ): AsyncIterableIterator<Uint8Array> {
    const session = this.#connected();
    const stream = openStream(session, `/etcdserverpb.${method}`);
    const end = (): void => stream.close(constants.NGHTTP2_CANCEL);
    let silent = false;
    const pings = this.#init.clock.setInterval(() => {
      if (silent) return this.#leave(session);
      silent = true;
      session.ping(() => (silent = false));
    }, pingMs);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    const frames = new FrameReader(maxMessageBytes);
    try {
      stream.write(encodeFrame(request));
      for await (const chunk of stream) {
        frames.push(chunk as Buffer);
        for (let frame = frames.next(); frame !== undefined; frame = frames.next()) yield frame.bytes;
      }
      throw new Error("etcd ended the stream");
    } catch (error) {
      if (!signal.aborted) this.#leave(session);
      throw this.#failures.get(session) ?? error;
    } finally {
      pings.cancel();
      signal.removeEventListener("abort", end);
      end();
    }
  }

  awaySinceMs(): number | undefined {
    return this.#reach.awaySinceMs();
  }

  close(): void {
    this.#closed = true;
    this.#reach.close();
    this.#session?.destroy();
    this.#session = undefined;
  }

  async #attempts(path: string, kind: "read" | "write", request: Uint8Array): Promise<Uint8Array> {
    for (let attempt = 0; ; attempt++) {
      const session = this.#connected();
      try {
        return await exchange(session, path, request);
      } catch (thrown) {
        if (!(thrown instanceof BrokenConnection)) throw thrown;
        const why = this.#failures.get(session);
        const error = why === undefined ? thrown : new BrokenConnection(why, thrown.sent && !isRefusal(why));
        this.#leave(session);
        // Once more than there are members: the connection may only have been old.
        if (this.#closed || attempt >= this.#urls.length || (error.sent && kind === "write")) throw error;
      }
    }
  }

  #connected(): ClientHttp2Session {
    const known = this.#session;
    if (known !== undefined && !known.closed && !known.destroyed) return known;
    const url = this.#urls[this.#member % this.#urls.length]!;
    const session = connect(url, { ...this.#init.tls });
    session.on("error", (error) => this.#failures.set(session, error));
    session.on("goaway", () => this.#leave(session));
    // One that ends unused may be the first sign of an outage; of others their calls tell.
    session.once("connect", () =>
      session.once("close", () => {
        if (this.#session === session && this.#running === 0) void this.#probe().catch(() => {});
      }),
    );
    this.#session = session;
    return session;
  }

  #probe(): Promise<unknown> {
    return this.call("KV/Range", "read", encodeRange("\0", true), new AbortController().signal);
  }

  #leave(session: ClientHttp2Session): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    this.#member = (this.#member + 1) % this.#urls.length;
    session.destroy();
  }
}

function openStream(session: ClientHttp2Session, path: string): ClientHttp2Stream {
  return session.request({
    [constants.HTTP2_HEADER_METHOD]: "POST",
    [constants.HTTP2_HEADER_PATH]: path,
    "content-type": "application/grpc",
    te: "trailers",
  });
}

/** One unary call. Rejects with BrokenConnection or EtcdError. */
function exchange(session: ClientHttp2Session, path: string, request: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let broken: Error | undefined;
    const wasConnected = !session.connecting;
    let stream: ClientHttp2Stream;
    try {
      stream = openStream(session, path);
    } catch (error) {
      return reject(new BrokenConnection(error as Error, false));
    }
    const frames = new FrameReader(maxMessageBytes);
    let message: Buffer | undefined;
    let status: { code: number; text: string } | undefined;
    const readStatus = (headers: Record<string, unknown>): void => {
      const code = headers["grpc-status"];
      if (code !== undefined)
        status = { code: Number(code), text: percentDecode(String(headers["grpc-message"] ?? "")) };
    };
    stream.on("response", readStatus);
    stream.on("trailers", readStatus);
    stream.on("data", (chunk: Buffer) => {
      frames.push(chunk);
      message ??= frames.next()?.bytes;
    });
    stream.on("error", (error) => (broken ??= error));
    stream.on("close", () => {
      if (status?.code === 0 && message !== undefined) return resolve(message);
      if (status !== undefined)
        return reject(new EtcdError(status.code, status.text || `gRPC status ${status.code}`));
      const sent = wasConnected || !session.connecting;
      reject(
        new BrokenConnection(broken ?? new Error("etcd closed the connection"), sent && !isRefusal(broken)),
      );
    });
    stream.end(encodeFrame(request));
  });
}

function isRefusal(error: Error | undefined): boolean {
  return /ECONNREFUSED|ENOTFOUND|EHOSTUNREACH|ETIMEDOUT|CERT|certificate/i.test(error?.message ?? "");
}
