/** Served calls with a streamed request, answer or both: what link.ts leaves to the serving side. */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError, cancelledBy } from "./errors.ts";
import { encodeAccept, encodeProgress, encodeResponse, FrameKind, type Following } from "./frame.ts";
import { errorOf, streamTickMs, livenessMs, StreamLink } from "./link.ts";
import { isNoResponders } from "./mux.ts";
import { chunkBytes, type WindowBudget } from "./stream.ts";
import { streamFilter, streamSubject } from "./subjects.ts";
import type { BodyStream, Caller, MeshIdentity, MeshResponse } from "./types.ts";

/** A look at the streams that is later than this means that this process stood still, ms. */
const stallMs = 1_000;

/** What a call must have to carry streams. */
export type StreamedCall = {
  readonly reply: string;
  readonly caller: Caller;
  /** Aborted when the caller gives up, falls silent or is gone. */
  readonly abort: AbortController;
  stream: ServedStream | undefined;
  /** Subject of the call at this instance, once the caller may have been told. */
  to: string | undefined;
};

export type ServedStream = { readonly to: string; readonly link: StreamLink };

export class ServedStreams {
  readonly #connection: MeshConnection;
  readonly #identity: MeshIdentity;
  readonly #budget: WindowBudget;
  /** By the subject of the stream, which names the caller: no other can speak for it. */
  readonly #streams = new Map<string, StreamLink>();
  /** Calls without streams that have shown life, by their subject. */
  readonly #calls = new Map<string, StreamedCall>();
  readonly #off: () => void;
  #subscription: Subscription | undefined;
  #ticker: Timer | undefined;
  #next = 0;
  #tickedMs = 0;

  constructor(connection: MeshConnection, identity: MeshIdentity, budget: WindowBudget) {
    this.#connection = connection;
    this.#identity = identity;
    this.#budget = budget;
    this.#off = connection.onChange((connected) => {
      if (connected) return;
      this.#breakAll(new MeshError("interrupted", "the NATS connection of the serving side broke"));
    });
  }

  get size(): number {
    return this.#streams.size;
  }

  start(): void {
    const filter = streamFilter(this.#identity.root, this.#identity);
    this.#subscription = this.#connection.subscribe(filter, (message) => this.#onMessage(message));
    const { clock } = this.#connection.settings;
    this.#tickedMs = clock.monotonicMs();
    this.#ticker = clock.setInterval(() => this.#tick(), streamTickMs);
  }

  stop(): void {
    this.#off();
    this.#ticker?.cancel();
    this.#subscription?.unsubscribe();
  }

  /** Tells the caller where to send the rest of the request, and gives it as a body. */
  accept(call: StreamedCall, first: Uint8Array, following: Following): BodyStream {
    const { to, link } = this.#open(call);
    const body = link.receive(first, following);
    link.publish(encodeAccept(to));
    return body;
  }

  /** Sends an answer in pieces. Rejects with what ended it; the caller is not told of that here. */
  async answer(call: StreamedCall, response: MeshResponse, body: BodyStream): Promise<void> {
    if (call.abort.signal.aborted) {
      const reason = cancelledBy(call.abort.signal);
      body.cancel(reason);
      throw reason;
    }
    const { to, link } = this.#open(call);
    const first = body.takeReady(Math.min(chunkBytes, this.#connection.maxPayloadBytes() / 2));
    const frame = encodeResponse({ ...response, body: first }, { length: body.length, to });
    try {
      this.#connection.publish(call.reply, frame, to);
    } catch (error) {
      body.putBack(first);
      throw error;
    }
    await link.send(body);
  }

  /** Shows the caller that its call is alive, and where: so each notices at once when the other is gone. */
  showLife(call: StreamedCall): void {
    const first = call.to === undefined;
    const to = this.#subjectOf(call);
    if (first) this.#calls.set(to, call);
    this.#connection.publish(call.reply, encodeProgress(undefined, to), to);
  }

  /** Tells a caller that this instance is there; `reply` is not one of a call. */
  answerProbe(reply: string, caller: Caller): void {
    const to = streamSubject(this.#identity.root, this.#identity, "-", caller);
    this.#connection.publish(reply, encodeProgress(undefined, to));
  }

  /** The call is over. */
  close(call: StreamedCall): void {
    if (call.to === undefined) return;
    this.#calls.delete(call.to);
    if (call.stream === undefined) return;
    const { to, link } = call.stream;
    this.#streams.delete(to);
    link.end(new MeshError("cancelled", "the call is over"));
  }

  #open(call: StreamedCall): ServedStream {
    if (call.stream !== undefined) return call.stream;
    const { signal } = call.abort;
    const to = this.#subjectOf(call);
    this.#calls.delete(to);
    const link = new StreamLink(
      {
        connection: this.#connection,
        budget: this.#budget,
        own: to,
        onBroken: (error) => call.abort.abort(error),
        // The caller goes on sending until its credit is used up, and stops with the answer.
        onReaderGone: () => {},
      },
      call.reply,
    );
    if (signal.aborted) link.end(cancelledBy(signal));
    signal.addEventListener("abort", () => link.end(cancelledBy(signal)), { once: true });
    this.#streams.set(to, link);
    call.stream = { to, link };
    return call.stream;
  }

  #subjectOf(call: StreamedCall): string {
    const next = (): string => (this.#next++).toString(36);
    return (call.to ??= streamSubject(this.#identity.root, this.#identity, next(), call.caller));
  }

  #onMessage(message: Msg): void {
    const link = this.#streams.get(message.subject);
    if (link === undefined) {
      if (!isNoResponders(message)) return;
      return this.#calls.get(message.subject)?.abort.abort(new MeshError("cancelled", "the caller is gone"));
    }
    try {
      const frame = link.read(message);
      if (frame?.kind === FrameKind.error) link.failReceived(errorOf(frame));
      else if (frame?.kind === FrameKind.cancel) link.break(new MeshError("cancelled", "the caller gave up"));
    } catch (error) {
      link.break(error);
    }
  }

  #tick(): void {
    const nowMs = this.#connection.settings.clock.monotonicMs();
    const lateMs = nowMs - this.#tickedMs - streamTickMs;
    this.#tickedMs = nowMs;
    for (const link of [...this.#streams.values()]) {
      // What the peers said while this process stood still is unread.
      if (lateMs > stallMs) link.aliveMs += lateMs;
      if (nowMs - link.aliveMs < livenessMs) link.tick();
      else link.break(new MeshError("timeout", `the caller showed no sign of life for ${livenessMs} ms`));
    }
  }

  #breakAll(error: MeshError): void {
    for (const link of [...this.#streams.values()]) link.break(error);
  }
}
