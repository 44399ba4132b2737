/**
 * JetStream's JSON API over the mux: stored publishes, direct and leader reads, administration. Retries what may be
 * retried, within one deadline: leader elections (503), a server that is away, a stream that vanished with its server.
 */
import type { Msg } from "@nats-io/transport-node";
import type { MeshConnection } from "./connection.ts";
import { MeshError, cancelledBy, isMeshError } from "./errors.ts";
import { type EncodedHeaders, headerText, headerValue, statusOf, statusWords } from "./headers.ts";
import type { Mux, Step } from "./mux.ts";
import { Room } from "./room.ts";

/** One attempt's longest time, ms. */
const defaultAttemptMs = 5_000;
/**
 * The same at a stream with replicas, ms. While a leader is chosen, requests vanish without an answer, and a long wait
 * for one delays what would succeed now.
 */
const replicatedAttemptMs = 2_000;
/** Values of tables on their way at once, bytes. */
const roomBytes = 32 * 1024 * 1024;
const firstBackoffMs = 25;
const maxBackoffMs = 500;

/** Acknowledgement of a stored message. For a batch, `seq` is the last one's. */
export type PubAck = {
  readonly stream: string;
  readonly seq: number;
  readonly duplicate?: boolean;
  readonly count?: number;
};

/** A message as a direct read gives it: the headers as text (headers.ts), with those that JetStream adds. */
export type StoredMessage = { readonly headers: string; readonly data: Uint8Array };

/** JetStream's own error numbers that the mesh acts upon (nats.md, 1-3). */
export const JsCode = Object.freeze({
  noSuitablePeers: 10005,
  consumerNotFound: 10014,
  insufficientResources: 10023,
  messageNotFound: 10037,
  streamNameInUse: 10058,
  streamNotFound: 10059,
  wrongLastSequence: 10071,
  replicasNotSupported: 10074,
  storeFailed: 10077,
  duplicateInProcess: 10158,
  wrongLastSequenceInFlight: 10164,
  batchIncomplete: 10176,
  duplicateInBatch: 10201,
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

/** `attemptMs` for a stream with so many replicas. */
export function attemptMsFor(replicas: number | undefined): number {
  return replicas === undefined || replicas === 1 ? defaultAttemptMs : replicatedAttemptMs;
}

/** What JetStream refused as an error of the mesh, after some words on what it was about; other errors stay. */
export function storageError(error: unknown, about = ""): unknown {
  if (!(error instanceof JetStreamError)) return error;
  return new MeshError("storage", about + error.message, { cause: error });
}

export type AttemptOptions = {
  /** Monotonic time by which all retries are over, ms. */
  readonly endMs: number;
  /** The same for the case that NATS is away, when that shall be sooner. */
  readonly awayEndMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** For how long an attempt whose outcome is unknown is sent again, ms: 0 = never, Infinity = until `endMs`. */
  readonly repeatMs: number;
  /** Called when nobody answers for the subject: the stream may be gone and be created again here. */
  readonly onMissing?: ((options: WaitOptions) => Promise<unknown>) | undefined;
  /** One attempt's longest time, ms; 5,000 when not given. */
  readonly attemptMs?: number;
};

/** How long a caller waits for something that is shared with others. */
export type WaitOptions = Pick<AttemptOptions, "endMs" | "awayEndMs" | "signal">;

const empty = new Uint8Array(0);

export class JetStream {
  readonly connection: MeshConnection;
  readonly mux: Mux;
  readonly room = new Room(roomBytes);
  #ids = 0;

  constructor(connection: MeshConnection, mux: Mux) {
    this.connection = connection;
    this.mux = mux;
  }

  /** A number that this connection has not used before. */
  nextId(): number {
    return this.#ids++;
  }

  /** Monotonic time in `timeoutMs`, for AttemptOptions. */
  endIn(timeoutMs: number): number {
    return this.connection.settings.clock.monotonicMs() + timeoutMs;
  }

  /** Stores one message. Rejects with JetStreamError (refused) or MeshError. */
  publish(
    subject: string,
    data: Uint8Array,
    headers: EncodedHeaders | undefined,
    options: AttemptOptions,
  ): Promise<PubAck> {
    return this.#attempts(subject, data, headers, options, readAck);
  }

  /** Sends a message of a batch that expects no answer of its own. */
  publishWithoutAck(subject: string, data: Uint8Array, headers: EncodedHeaders): void {
    this.connection.publish(subject, data, undefined, headers);
  }

  /** Administration call; `subject` without the `$JS.API.` prefix. */
  api<T>(subject: string, body: unknown, options: AttemptOptions): Promise<T> {
    const payload = body === undefined ? empty : Buffer.from(JSON.stringify(body));
    return this.#attempts(`$JS.API.${subject}`, payload, undefined, options, readApi<T>);
  }

  /**
   * As `api`, but undefined for the error that is an answer too: the one of this JsCode, or each. Rejects with
   * MeshError, `about` before what JetStream says.
   */
  async ask<T>(
    subject: string,
    body: unknown,
    options: AttemptOptions,
    absent?: number | "any",
    about = "",
  ): Promise<T | undefined> {
    try {
      return await this.api<T>(subject, body, options);
    } catch (error) {
      const isAnswer = error instanceof JetStreamError && (absent === "any" || absent === error.jsCode);
      if (isAnswer) return undefined;
      throw storageError(error, about);
    }
  }

  /** Last message of a subject, from any replica; undefined when there is none. */
  directGet(stream: string, subject: string, options: AttemptOptions): Promise<StoredMessage | undefined> {
    return this.#attempts(`$JS.API.DIRECT.GET.${stream}.${subject}`, empty, undefined, options, readDirect);
  }

  /**
   * Many last messages by one request, in stream order. `pending` counts those that the server left out because the
   * answer got too big for it.
   */
  directGetMany(
    stream: string,
    request: unknown,
    options: AttemptOptions,
  ): Promise<{ messages: StoredMessage[]; pending: number }> {
    let messages: StoredMessage[] = [];
    const payload = Buffer.from(JSON.stringify(request));
    const read = (message: Msg): Step<{ messages: StoredMessage[]; pending: number }> => {
      const headers = headerText(message);
      const status = statusOf(headers);
      if (status === 0) {
        messages.push({ headers, data: message.data });
        return "more";
      }
      if (status !== 204 && status !== 404) throw refused(status, headers);
      return { done: { messages, pending: Number(headerValue(headers, "Nats-Num-Pending")) || 0 } };
    };
    // A part that came before an attempt broke off must not mix with the answer to the next one.
    const begin = (): void => {
      messages = [];
    };
    return this.#attempts(`$JS.API.DIRECT.GET.${stream}`, payload, undefined, options, read, begin);
  }

  async #attempts<T>(
    subject: string,
    payload: Uint8Array,
    headers: EncodedHeaders | undefined,
    options: AttemptOptions,
    read: (message: Msg) => Step<T>,
    begin?: () => void,
  ): Promise<T> {
    const { clock } = this.connection.settings;
    const { signal, attemptMs = defaultAttemptMs, awayEndMs = options.endMs } = options;
    let { endMs } = options;
    for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
      try {
        if (!this.connection.connected) {
          const waitMs = Math.min(endMs, awayEndMs) - clock.monotonicMs();
          await this.connection.readyWithin(Math.max(1, waitMs), signal);
        }
        begin?.();
        const timeoutMs = Math.min(attemptMs, Math.max(1, endMs - clock.monotonicMs()));
        return await this.mux.request<T>(subject, payload, { timeoutMs, signal, headers, read });
      } catch (error) {
        const nowMs = clock.monotonicMs();
        if (isMeshError(error, "timeout", "interrupted")) endMs = Math.min(endMs, nowMs + options.repeatMs);
        const lastMs = isMeshError(error, "disconnected") ? Math.min(endMs, awayEndMs) : endMs;
        if (!this.#mayRetry(error, options) || nowMs + backoffMs >= lastMs) throw named(error);
        const missing = isMeshError(error, "no-responders") || isJsError(error, JsCode.streamNotFound);
        if (missing) await options.onMissing?.({ endMs, signal }).catch(() => {});
        await clock.sleep(backoffMs, signal).catch(() => Promise.reject(cancelledBy(signal!)));
      }
    }
  }

  #mayRetry(error: unknown, options: AttemptOptions): boolean {
    if (isMeshError(error, "no-responders", "disconnected")) return !this.connection.closed;
    if (isMeshError(error, "timeout", "interrupted")) return options.repeatMs > 0;
    if (!(error instanceof JetStreamError)) return false;
    if (error.jsCode === JsCode.duplicateInProcess) return options.repeatMs > 0;
    if (error.jsCode === JsCode.streamNotFound) return options.onMissing !== undefined;
    // 503 from JetStream itself: no leader now, or the server is still recovering.
    const full = error.jsCode === JsCode.insufficientResources || error.jsCode === JsCode.storeFailed;
    return error.status === 503 && !full;
  }
}

/** "nobody answers" for a stream's subject means that JetStream is not there: say that instead. */
function named(error: unknown): unknown {
  if (!isMeshError(error, "no-responders")) return error;
  return new MeshError("storage", "JetStream does not answer; is it enabled on this NATS server?", {
    cause: error,
  });
}

/** Error of an answer that consists of a status. */
function refused(status: number, headers: string): Error {
  if (status === 503) return new MeshError("no-responders", "nobody answers for the stream");
  return new JetStreamError(status, 0, statusWords(headers) || "JetStream refused");
}

function readDirect(message: Msg): Step<StoredMessage | undefined> {
  const headers = headerText(message);
  const status = statusOf(headers);
  if (status === 0) return { done: { headers, data: message.data } };
  if (status === 404) return { done: undefined };
  throw refused(status, headers);
}

type ErrorBody = {
  readonly error?: { readonly code: number; readonly err_code?: number; readonly description?: string };
};

function readAck(message: Msg): Step<PubAck> {
  const ack = readJson<PubAck & ErrorBody>(message);
  if (typeof ack.seq === "number") return { done: ack };
  throw new MeshError("protocol", "the answer to a stored message is no acknowledgement of JetStream");
}

function readApi<T>(message: Msg): Step<T> {
  return { done: readJson<T & ErrorBody>(message) };
}

function readJson<T extends ErrorBody>(message: Msg): T {
  const { data } = message;
  if (data.length === 0) throw refused(statusOf(headerText(message)), headerText(message));
  let body: T;
  try {
    const buffer = data instanceof Buffer ? data : Buffer.from(data.buffer, data.byteOffset, data.length);
    body = JSON.parse(buffer.toString("utf8")) as T;
  } catch (cause) {
    throw new MeshError("protocol", "the answer of JetStream is not JSON", { cause });
  }
  if (typeof body !== "object" || body === null)
    throw new MeshError("protocol", "the answer of JetStream is no object");
  const { error } = body;
  if (error === undefined) return body;
  throw new JetStreamError(error.code, error.err_code ?? 0, error.description ?? "JetStream refused");
}
