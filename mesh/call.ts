/**
 * The calling side: one framed request to an app's queue group, answered through the mux. Bodies that do not fit in one
 * message go in chunks (caller-stream.ts). When no sidecar serves the app, the plain-NATS form is tried, so that a
 * program with only a NATS client can be an app. Normative: README.md.
 */
import type { Msg } from "@nats-io/transport-node";
import { bodyOfBytes, tryCollect } from "./body.ts";
import { CallerStream, StreamCalls } from "./caller-stream.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError, cancelledBy, isMeshError } from "./errors.ts";
import { FrameKind, decodeFrame, encodeCancel, encodeRequest, readFollowing, readResponse } from "./frame.ts";
import { errorOf, livenessMs } from "./link.ts";
import type { Peers } from "./peers.ts";
import { type Mux, type MuxOptions, type Step, type Waiting, isNoResponders } from "./mux.ts";
import { plainRequest, readPlainResponse } from "./plain.ts";
import { chunkBytes, type WindowBudget } from "./stream.ts";
import { callSubject } from "./subjects.ts";
import type { BodyStream, CallOptions, MeshIdentity, MeshRequest, MeshResponse } from "./types.ts";

/** A call waits this long for NATS to come back before it fails as not sent. */
const reconnectWaitMs = 5_000;
/** Wait before an app is looked for again that was not there right after NATS came back, ms. */
const settleWaitMs = 50;
/** Limit of a plain-NATS app that has no way to show progress. */
const plainTimeoutMs = 60_000;
/** Subjects remembered, one per called app. */
const maxSubjects = 1_000;
/** What is left of a message for the head of a request that begins a stream. */
const headShare = 2;

/** Of one called app. */
type Subjects = {
  readonly rpc: string;
  readonly call: string;
  readonly cancel: string;
  readonly onQuiet: (waiting: Waiting) => void;
};
type Whole = MeshRequest & { readonly body: Uint8Array };

export class Caller {
  readonly #connection: MeshConnection;
  readonly #mux: Mux;
  readonly #identity: MeshIdentity;
  readonly #subjects = new Map<string, Subjects>();
  readonly #streams: StreamCalls;
  readonly #peers: Peers;

  constructor(
    connection: MeshConnection,
    mux: Mux,
    identity: MeshIdentity,
    budget: WindowBudget,
    peers: Peers,
  ) {
    this.#connection = connection;
    this.#mux = mux;
    this.#identity = identity;
    this.#peers = peers;
    this.#streams = new StreamCalls(connection, identity, budget, peers);
  }

  /** Calls with an open stream; for tests and diagnostics. */
  get streamCount(): number {
    return this.#streams.size;
  }

  async call(request: MeshRequest, options: CallOptions): Promise<MeshResponse> {
    const { clock } = this.#connection.settings;
    const subjects = this.#subjectsOf(options);
    const endMs = options.timeoutMs > 0 ? clock.monotonicMs() + options.timeoutMs : Number.POSITIVE_INFINITY;
    for (;;) {
      try {
        return await this.#attempt(request, options, subjects, endMs);
      } catch (error) {
        const again = isMeshError(error, "no-responders") && this.#connection.settling;
        if (!again || clock.monotonicMs() + settleWaitMs >= endMs) throw error;
        await clock
          .sleep(settleWaitMs, options.signal)
          .catch(() => Promise.reject(cancelledBy(options.signal!)));
      }
    }
  }

  async #attempt(
    request: MeshRequest,
    { timeoutMs, signal, sidecarsOnly = false, onAccepted }: CallOptions,
    subjects: Subjects,
    endMs: number,
  ): Promise<MeshResponse> {
    const { clock } = this.#connection.settings;
    const leftMs = (): number => (timeoutMs > 0 ? Math.max(1, endMs - clock.monotonicMs()) : 0);
    if (!this.#connection.connected) {
      await this.#connection.readyWithin(Math.min(leftMs() || reconnectWaitMs, reconnectWaitMs), signal);
    }
    const left = leftMs();
    const { body } = request;
    const sending: MuxOptions<MeshResponse> = {
      timeoutMs: left,
      idleMs: livenessMs,
      signal,
      read: this.#readReply,
      onQuiet: subjects.onQuiet,
      onGiveUp: (replySubject) => this.#cancel(subjects.cancel, replySubject),
    };
    try {
      if (!(body instanceof Uint8Array))
        return await this.#callStreamed(subjects, request, body, sending, onAccepted);
      const frame = this.#wholeFrame(request as Whole, left);
      if (frame !== undefined) return await this.#mux.request(subjects.rpc, frame, sending);
      return await this.#callStreamed(subjects, request, bodyOfBytes(body), sending, onAccepted);
    } catch (error) {
      if (sidecarsOnly || !isMeshError(error, "no-responders")) throw error;
      return await this.#callPlain(subjects.call, request, leftMs() || plainTimeoutMs, signal);
    }
  }

  /** Undefined when the request does not fit in one message. */
  #wholeFrame(request: Whole, timeoutMs: number): Buffer | undefined {
    const limit = this.#connection.maxPayloadBytes();
    if (request.body.length > limit) return undefined;
    const frame = encodeRequest(request, timeoutMs);
    return frame.length <= limit || request.body.length === 0 ? frame : undefined;
  }

  async #callStreamed(
    subjects: Subjects,
    request: MeshRequest,
    body: BodyStream,
    sending: MuxOptions<MeshResponse>,
    onAccepted: (() => void) | undefined,
  ): Promise<MeshResponse> {
    const first = body.takeReady(Math.min(chunkBytes, this.#connection.maxPayloadBytes() / headShare));
    const stream = new CallerStream(this.#streams, body, onAccepted);
    try {
      const frame = encodeRequest({ ...request, body: first }, sending.timeoutMs, { length: body.length });
      return await this.#mux.request(subjects.rpc, frame, { ...sending, read: stream.read });
    } catch (error) {
      if (isMeshError(error, "no-responders", "disconnected")) body.putBack(first);
      else stream.end(error);
      throw error;
    }
  }

  /** A plain program gets and gives whole bodies. */
  async #callPlain(
    subject: string,
    request: MeshRequest,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<MeshResponse> {
    const whole = { ...request, body: await this.#collect(request.body, signal) };
    const { payload, headers } = plainRequest(whole);
    try {
      return await this.#mux.request(subject, payload, { headers, timeoutMs, signal, read: readPlainReply });
    } catch (error) {
      const unsent = isMeshError(error, "no-responders");
      if (unsent && !(request.body instanceof Uint8Array)) request.body.putBack(whole.body);
      throw error;
    }
  }

  async #collect(body: Uint8Array | BodyStream, signal: AbortSignal | undefined): Promise<Uint8Array> {
    if (body instanceof Uint8Array) return body;
    const cancel = (): void => body.cancel(new MeshError("cancelled", "the caller gave up"));
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const whole = await tryCollect(body, this.#connection.maxPayloadBytes() / headShare);
      // Nobody knows whether a plain program is there; for a sidecar no size would be too large.
      if (whole === undefined) throw noResponders();
      return whole;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  #cancel(subject: string, replySubject: string): void {
    try {
      this.#connection.publish(subject, encodeCancel(replySubject));
    } catch {
      // NATS is away: the serving side loses this call by itself.
    }
  }

  readonly #readReply = (message: Msg, waiting: Waiting): Step<MeshResponse> => {
    if (isNoResponders(message)) throw noResponders();
    const frame = decodeFrame(message.data);
    if (frame.kind === FrameKind.response) {
      if (readFollowing(frame) === undefined) return { done: readResponse(frame) };
      return new CallerStream(this.#streams, undefined).answer(frame, waiting);
    }
    if (frame.kind === FrameKind.progress) {
      if (frame.head["to"] !== undefined) this.#peers.watch(waiting, this.#streams.peerOf(frame));
      return "more";
    }
    if (frame.kind === FrameKind.error) throw errorOf(frame);
    throw new MeshError("protocol", `frame kind ${frame.kind} is no answer to a call`);
  };

  #subjectsOf(target: { namespace: string; app: string }): Subjects {
    const key = `${target.namespace}\u0000${target.app}`;
    let subjects = this.#subjects.get(key);
    if (subjects === undefined) {
      const of = (form: "rpc" | "call" | "cancel"): string =>
        callSubject(this.#identity.root, form, target, this.#identity);
      const cancel = of("cancel");
      const { namespace, app } = target;
      const onQuiet = (waiting: Waiting): void => this.#peers.ask(waiting, { namespace, app }, cancel);
      subjects = { rpc: of("rpc"), call: of("call"), cancel, onQuiet };
      if (this.#subjects.size >= maxSubjects) this.#subjects.clear();
      this.#subjects.set(key, subjects);
    }
    return subjects;
  }
}

function readPlainReply(message: Msg): Step<MeshResponse> {
  if (isNoResponders(message)) throw noResponders();
  return { done: readPlainResponse(message) };
}

function noResponders(): MeshError {
  return new MeshError("no-responders", "no instance of the app is there");
}
