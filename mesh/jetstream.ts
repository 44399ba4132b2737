/**
 * JetStream's JSON API over the mux: stored publishes, direct and leader reads, administration. Retries what may be
 * retried, within one deadline: leader elections (503), a server that is away, a stream that vanished with its server.
 */
import { headers as newHeaders, type Msg, type MsgHdrs } from "@nats-io/transport-node";
import type { MeshConnection } from "./connection.ts";
import { MeshError, isMeshError } from "./errors.ts";
import { type Mux, isNoResponders } from "./mux.ts";

/** One attempt's longest time, ms. */
const attemptMs = 5_000;
const firstBackoffMs = 25;
const maxBackoffMs = 500;

/** Acknowledgement of a stored message. For a batch, `seq` is the last one's. */
export type PubAck = { readonly stream: string; readonly seq: number; readonly duplicate?: boolean; readonly count?: number };

/** JetStream's own error numbers that the mesh acts upon (nats.md, 1-3). */
export const JsCode = Object.freeze({
  wrongLastSequence: 10071,
  wrongLastSequenceInFlight: 10164,
  streamNotFound: 10059,
  streamNameInUse: 10058,
  consumerNotFound: 10014,
  duplicateInBatch: 10201,
  batchIncomplete: 10176,
  messageNotFound: 10037,
} as const);

/** What JetStream answered instead of success. */
export class JetStreamError extends Error {
  readonly jsCode: number;
  readonly status: number;

  constructor(status: number, jsCode: number, description: string) {
    super(`${description} (${jsCode})`);
    this.name = "JetStreamError";
    this.status = status;
    this.jsCode = jsCode;
  }
}

export function isJsError(error: unknown, ...codes: number[]): error is JetStreamError {
  return error instanceof JetStreamError && codes.includes(error.jsCode);
}

export type AttemptOptions = {
  /** Total time with all retries, ms. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** May an attempt whose outcome is unknown be sent again? */
  readonly idempotent: boolean;
  /** Called when nobody answers for the subject: the stream may be gone and be created again here. */
  readonly onMissing?: (() => Promise<void>) | undefined;
};

/** Flat name, value list as NATS headers. */
export function natsHeaders(pairs: readonly string[]): MsgHdrs {
  const made = newHeaders();
  for (let i = 0; i + 1 < pairs.length; i += 2) made.append(pairs[i]!, pairs[i + 1]!);
  return made;
}

const empty = new Uint8Array(0);

export class JetStream {
  readonly connection: MeshConnection;
  readonly mux: Mux;
  #ids = 0;

  constructor(connection: MeshConnection, mux: Mux) {
    this.connection = connection;
    this.mux = mux;
  }

  /** A number that this connection has not used before. */
  nextId(): number {
    return this.#ids++;
  }

  /** Stores one message. Rejects with JetStreamError (refused) or MeshError. */
  publish(subject: string, data: Uint8Array, headers: MsgHdrs | undefined, options: AttemptOptions): Promise<PubAck> {
    return this.#attempts(subject, data, headers, options, readAck);
  }

  /** Sends a message of a batch that expects no answer of its own. */
  publishWithoutAck(subject: string, data: Uint8Array, headers: MsgHdrs): void {
    this.connection.publish(subject, data, { headers });
  }

  /** Administration call; `subject` without the `$JS.API.` prefix. */
  api<T>(subject: string, body: unknown, options: AttemptOptions): Promise<T> {
    const payload = body === undefined ? empty : Buffer.from(JSON.stringify(body));
    return this.#attempts(`$JS.API.${subject}`, payload, undefined, options, (message) => readApi<T>(message));
  }

  /** Last message of a subject, from any replica; undefined when there is none. */
  directGet(stream: string, subject: string, options: AttemptOptions): Promise<Msg | undefined> {
    return this.#attempts(`$JS.API.DIRECT.GET.${stream}.${subject}`, empty, undefined, options, (message) => {
      const code = message.headers?.code ?? 0;
      if (code === 404) return { done: undefined };
      if (code !== 0) throw new JetStreamError(code, 0, message.headers?.description ?? "direct get failed");
      return { done: message };
    });
  }

  /** Many last messages by one request, in stream order; ends when the server says so. */
  directGetMany(stream: string, request: unknown, options: AttemptOptions): Promise<Msg[]> {
    const found: Msg[] = [];
    const payload = Buffer.from(JSON.stringify(request));
    return this.#attempts(`$JS.API.DIRECT.GET.${stream}`, payload, undefined, options, (message) => {
      const code = message.headers?.code ?? 0;
      if (code === 0) {
        found.push(message);
        return "more";
      }
      if (code === 204 || code === 404) return { done: found };
      throw new JetStreamError(code, 0, message.headers?.description ?? "direct get failed");
    });
  }

  async #attempts<T>(
    subject: string,
    payload: Uint8Array,
    headers: MsgHdrs | undefined,
    options: AttemptOptions,
    read: (message: Msg) => { done: T } | "more",
  ): Promise<T> {
    const { clock } = this.connection.settings;
    const endMs = clock.monotonicMs() + options.timeoutMs;
    for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
      const leftMs = endMs - clock.monotonicMs();
      try {
        if (!this.connection.connected) await this.connection.readyWithin(Math.max(leftMs, 1), options.signal);
        return await this.mux.request<T>(subject, payload, {
          timeoutMs: Math.min(attemptMs, Math.max(leftMs, 1)),
          signal: options.signal,
          ...(headers === undefined ? {} : { headers }),
          read: (message) => {
            if (isNoResponders(message)) throw new MeshError("no-responders", `nobody answers for ${subject}`);
            return read(message);
          },
        });
      } catch (error) {
        if (!this.#mayRetry(error, options) || clock.monotonicMs() + backoffMs >= endMs) throw named(error);
        if (isMeshError(error, "no-responders")) await options.onMissing?.().catch(() => {});
        await clock.sleep(backoffMs, options.signal);
      }
    }
  }

  #mayRetry(error: unknown, options: AttemptOptions): boolean {
    if (isMeshError(error, "no-responders", "disconnected")) return !this.connection.closed;
    if (isMeshError(error, "timeout", "interrupted")) return options.idempotent;
    // 503 from JetStream itself: no leader now, or the server is still recovering.
    return error instanceof JetStreamError && error.status === 503 && error.jsCode !== 10023 && error.jsCode !== 10077;
  }
}

/** "nobody answers" for a stream's subject means that JetStream is not there: say that instead. */
function named(error: unknown): unknown {
  if (!isMeshError(error, "no-responders")) return error;
  return new MeshError("storage", "JetStream does not answer; is it enabled on this NATS server?", { cause: error });
}

function readAck(message: Msg): { done: PubAck } {
  const ack = message.json<PubAck & ErrorBody>();
  if (ack.error !== undefined) throw errorOf(ack.error);
  return { done: ack };
}

type ErrorBody = { readonly error?: { readonly code: number; readonly err_code?: number; readonly description?: string } };

function readApi<T>(message: Msg): { done: T } {
  const body = message.json<T & ErrorBody>();
  if (body.error !== undefined) throw errorOf(body.error);
  return { done: body };
}

function errorOf(error: NonNullable<ErrorBody["error"]>): JetStreamError {
  return new JetStreamError(error.code, error.err_code ?? 0, error.description ?? "JetStream refused");
}
