/**
 * The serving side: takes calls of the app's queue group, shows progress while the app works, answers, and drains
 * without losing one (NATS' own drain does not wait for handlers).
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError, isMeshError, textOf } from "./errors.ts";
import { FrameKind, decodeFrame, encodeResponse, readFollowing, readIds, readRequest } from "./frame.ts";
import { bodyOfBytes, collectBody } from "./body.ts";
import { encodeErrorOf, lifeSignMs } from "./link.ts";
import { plainError, plainResponse, readPlainRequest } from "./plain.ts";
import { type StreamedCall, ServedStreams } from "./served-streams.ts";
import type { WindowBudget } from "./stream.ts";
import { callFilter, encodeToken, isReplySubject, parseCaller } from "./subjects.ts";
import type { Caller, MeshIdentity, MeshRequest, MeshResponse, ServeHandler, Served } from "./types.ts";

/** Calls served at once; more are refused as overload. */
const maxInFlight = 10_000;
/** An answer waits this long for NATS to come back, ms; the caller gives up soon after. */
const answerWaitMs = 10_000;
/** A caller's own deadline comes first; past it by this much, the caller is gone, ms. */
const deadlineGraceMs = 1_000;
/** Callers remembered by their subjects. */
const maxCallers = 1_000;
/** A call that takes longer than this shows life, ms: so its caller knows early which instance to watch. */
const firstSignMs = 500;
/** How often the calls are looked at, ms. */
const lookMs = 500;
/** Longest text of an error; it must fit in a message whatever the app threw. */
const maxErrorChars = 8_192;

/** One call that is being served. */
type InFlight = StreamedCall & {
  /** Key in the map: the reply subject, unless a caller uses one for several calls. */
  readonly id: string;
  readonly framed: boolean;
  /** When the caller shall hear that it is alive. */
  signAtMs: number;
  /** When the caller has given up for certain, unless the answer has begun. */
  untilMs: number;
  answered: boolean;
};

export class Server implements Served {
  readonly #connection: MeshConnection;
  readonly #identity: MeshIdentity;
  readonly #handler: ServeHandler;
  readonly #inFlight = new Map<string, InFlight>();
  readonly #streams: ServedStreams;
  readonly #callers = new Map<string, Caller>();
  #requests: Subscription[] = [];
  #cancels: Subscription | undefined;
  #progress: Timer | undefined;
  #off: (() => void) | undefined;
  #onIdle: (() => void) | undefined;
  #draining: Promise<void> | undefined;
  #repeats = 0;

  constructor(
    connection: MeshConnection,
    identity: MeshIdentity,
    handler: ServeHandler,
    budget: WindowBudget,
  ) {
    this.#connection = connection;
    this.#identity = identity;
    this.#handler = handler;
    this.#streams = new ServedStreams(connection, identity, budget);
  }

  /** Calls with an open stream; for tests and diagnostics. */
  get streamCount(): number {
    return this.#streams.size;
  }

  /** Calls being served now; for tests and diagnostics. */
  get inFlightCount(): number {
    return this.#inFlight.size;
  }

  /** Subscribes; the client repeats it after every reconnect. Resolves when the server has taken it. */
  async start(): Promise<void> {
    const { root, app } = this.#identity;
    const queue = encodeToken(app);
    const connection = this.#connection;
    await connection.ready();
    this.#cancels = connection.subscribe(callFilter(root, "cancel", this.#identity), (message) =>
      this.#onCancel(message),
    );
    this.#streams.start();
    this.#requests = [
      connection.subscribe(
        callFilter(root, "rpc", this.#identity),
        (message) => this.#onFramed(message),
        queue,
      ),
      connection.subscribe(
        callFilter(root, "call", this.#identity),
        (message) => this.#onPlain(message),
        queue,
      ),
    ];
    this.#progress = connection.settings.clock.setInterval(() => this.#showProgress(), lookMs);
    this.#off = connection.onChange(() => {
      if (connection.closed) this.#end();
    });
    while (!(await connection.flush())) await connection.ready();
  }

  drain(graceMs: number): Promise<void> {
    this.#draining ??= this.#drain(graceMs);
    return this.#draining;
  }

  async #drain(graceMs: number): Promise<void> {
    const { clock } = this.#connection.settings;
    await Promise.all(this.#requests.map((subscription) => subscription.drain().catch(() => {})));
    if (this.#inFlight.size > 0) {
      await new Promise<void>((resolve) => {
        const limit = clock.setTimeout(resolve, graceMs);
        this.#onIdle = () => {
          limit.cancel();
          resolve();
        };
      });
    }
    this.#end();
    await this.#connection.flush();
  }

  /** Answers what is still running, and lets go of everything. */
  #end(): void {
    this.#progress?.cancel();
    this.#off?.();
    this.#cancels?.unsubscribe();
    this.#streams.stop();
    for (const call of this.#inFlight.values()) {
      const stopped = new MeshError("closed", "the sidecar of the app stops");
      if (!call.answered && this.#connection.connected) this.#publishError(call, stopped);
      call.answered = true;
      call.abort.abort(stopped);
    }
  }

  #onFramed(message: Msg): void {
    const { reply } = message;
    if (!this.#mayAnswer(reply)) return;
    try {
      const frame = decodeFrame(message.data);
      if (frame.kind !== FrameKind.request)
        throw new MeshError("protocol", `frame kind ${frame.kind} is no request`);
      const { request, timeoutMs } = readRequest(frame);
      const following = readFollowing(frame);
      const call = this.#admit(message, reply, timeoutMs, true);
      if (following === undefined) return void this.#run(call, request);
      const body = this.#streams.accept(call, request.body, following);
      void this.#run(call, { ...request, body });
    } catch (error) {
      this.#connection.publish(reply, encodeErrorOf(error));
    }
  }

  #onPlain(message: Msg): void {
    const { reply } = message;
    if (!this.#mayAnswer(reply)) return;
    try {
      const request = readPlainRequest(message);
      void this.#run(this.#admit(message, reply, 0, false), request);
    } catch (error) {
      const { payload, headers } = plainError(400, codeOf(error), shortTextOf(error));
      this.#connection.publish(reply, payload, undefined, headers);
    }
  }

  /** A forged reply subject would make this participant write into a stream or call an API in the caller's place. */
  #mayAnswer(reply: string | undefined): reply is string {
    if (reply === undefined || reply === "") return false;
    if (isReplySubject(this.#identity.root, reply)) return true;
    this.#connection.settings.log(
      "warn",
      `call with the reply subject ${reply.slice(0, 100)} is not answered`,
    );
    return false;
  }

  #onCancel(message: Msg): void {
    try {
      const frame = decodeFrame(message.data);
      const { kind, head } = frame;
      const caller = parseCaller(message.subject);
      if (kind === FrameKind.cancel && typeof head["id"] === "string") {
        this.#callOf(head["id"], caller)?.abort.abort(new MeshError("cancelled", "the caller gave up"));
      } else if (kind === FrameKind.probe && this.#mayAnswer(message.reply)) {
        for (const id of readIds(frame)) {
          const call = this.#callOf(id, caller);
          if (call !== undefined && !call.answered) this.#streams.showLife(call);
        }
        this.#streams.answerProbe(message.reply, caller);
      }
    } catch (error) {
      this.#connection.settings.log("debug", `cancel or probe frame dropped: ${textOf(error)}`);
    }
  }

  /** Only the caller may ask for its call, or end it. */
  #callOf(id: string, { namespace, app }: Caller): InFlight | undefined {
    const call = this.#inFlight.get(id);
    return call?.caller.namespace === namespace && call.caller.app === app ? call : undefined;
  }

  #admit(message: Msg, reply: string, timeoutMs: number, framed: boolean): InFlight {
    if (this.#inFlight.size >= maxInFlight) {
      throw new MeshError("peer", `this instance already serves ${maxInFlight} calls`);
    }
    const caller = this.#callerOf(message.subject);
    const sinceMs = this.#connection.settings.clock.monotonicMs();
    const untilMs = timeoutMs > 0 ? sinceMs + timeoutMs + deadlineGraceMs : Number.POSITIVE_INFINITY;
    // A space cannot stand in a subject, so a made-up id meets no other.
    const id = this.#inFlight.has(reply) ? `${reply} ${this.#repeats++}` : reply;
    const abort = new AbortController();
    const call: InFlight = {
      id,
      reply,
      framed,
      caller,
      abort,
      signAtMs: sinceMs + firstSignMs,
      untilMs,
      answered: false,
      stream: undefined,
      to: undefined,
    };
    this.#inFlight.set(id, call);
    return call;
  }

  #callerOf(subject: string): Caller {
    let caller = this.#callers.get(subject);
    if (caller === undefined) {
      caller = parseCaller(subject);
      if (this.#callers.size >= maxCallers) this.#callers.clear();
      this.#callers.set(subject, caller);
    }
    return caller;
  }

  /** Never rejects. */
  async #run(call: InFlight, request: MeshRequest): Promise<void> {
    let send: () => void;
    try {
      const response = await this.#handler(request, call.caller, call.abort.signal);
      if (this.#fitsInOne(call, response)) send = () => this.#sendWhole(call, response);
      else send = await this.#sendLarge(call, response);
    } catch (error) {
      send = () => this.#sendError(call, error);
    }
    if (!call.answered && !this.#publish(call, send)) await this.#publishLater(call, send);
    this.#streams.close(call);
    this.#inFlight.delete(call.id);
    if (this.#inFlight.size === 0) this.#onIdle?.();
  }

  #fitsInOne(call: InFlight, { body }: MeshResponse): boolean {
    if (!(body instanceof Uint8Array)) return false;
    return !call.framed || body.length <= this.#connection.maxPayloadBytes() / 2;
  }

  /** Sends an answer whose size is unknown or near max_payload; gives what is left to do after that. */
  async #sendLarge(call: InFlight, response: MeshResponse): Promise<() => void> {
    const { body } = response;
    const limit = this.#connection.maxPayloadBytes();
    if (!call.framed) {
      const whole = { ...response, body: await collectBody(body, limit) };
      return () => this.#sendWhole(call, whole);
    }
    if (body instanceof Uint8Array && body.length <= limit) {
      const frame = encodeResponse({ ...response, body });
      if (frame.length <= limit) return () => this.#connection.publish(call.reply, frame);
    }
    call.untilMs = Number.POSITIVE_INFINITY;
    if (!this.#connection.connected) await this.#connection.readyWithin(answerWaitMs, call.abort.signal);
    await this.#streams.answer(call, response, body instanceof Uint8Array ? bodyOfBytes(body) : body);
    return () => {};
  }

  /** False when NATS is away. Anything else that stands against the answer is told to the caller. */
  #publish(call: InFlight, send: () => void): boolean {
    try {
      send();
      return true;
    } catch (error) {
      if (isMeshError(error, "disconnected")) return false;
      return this.#publishError(call, error);
    }
  }

  #publishError(call: InFlight, error: unknown): boolean {
    try {
      this.#sendError(call, error);
      return true;
    } catch (second) {
      this.#connection.settings.log(
        "warn",
        `a call of ${call.caller.app} stays without an answer: ${textOf(second)}`,
      );
      return !isMeshError(second, "disconnected");
    }
  }

  /** In a cluster the caller may be connected all the time, and waits. */
  async #publishLater(call: InFlight, send: () => void): Promise<void> {
    // A call with streams was aborted by the break itself; its caller waits all the same.
    const signal = call.abort.signal.aborted ? undefined : call.abort.signal;
    try {
      await this.#connection.readyWithin(answerWaitMs, signal);
      this.#publish(call, send);
    } catch (error) {
      this.#connection.settings.log("debug", `answer to ${call.caller.app} lost: ${textOf(error)}`);
    }
  }

  #sendWhole(call: InFlight, response: MeshResponse): void {
    const whole = response as MeshResponse & { readonly body: Uint8Array };
    if (call.framed) return this.#connection.publish(call.reply, encodeResponse(whole));
    const { payload, headers } = plainResponse(whole);
    this.#connection.publish(call.reply, payload, undefined, headers);
  }

  #sendError(call: InFlight, error: unknown): void {
    if (call.framed) return this.#connection.publish(call.reply, encodeErrorOf(error));
    const status = isMeshError(error, "denied") ? 403 : 502;
    const { payload, headers } = plainError(status, codeOf(error), shortTextOf(error));
    this.#connection.publish(call.reply, payload, undefined, headers);
  }

  #showProgress(): void {
    const nowMs = this.#connection.settings.clock.monotonicMs();
    for (const call of this.#inFlight.values()) {
      if (nowMs >= call.untilMs)
        call.abort.abort(new MeshError("timeout", "the caller's deadline has passed"));
      if (!call.framed || call.stream !== undefined || nowMs < call.signAtMs) continue;
      call.signAtMs = nowMs + lifeSignMs;
      try {
        this.#streams.showLife(call);
      } catch {
        // NATS is away; the next round comes soon.
      }
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof MeshError ? error.code : "peer";
}

function shortTextOf(error: unknown): string {
  return textOf(error).slice(0, maxErrorChars);
}
