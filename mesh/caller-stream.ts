/** Calls with a streamed request, answer or both, on the calling side: what link.ts leaves to the caller. */
import type { Msg } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError } from "./errors.ts";
import { encodeCancel, FrameKind, type Frame, readFollowing, readResponse, readTo } from "./frame.ts";
import { encodeErrorOf, errorOf, streamTickMs, StreamLink } from "./link.ts";
import { isNoResponders, type Step, type Waiting } from "./mux.ts";
import type { Peers } from "./peers.ts";
import type { WindowBudget } from "./stream.ts";
import { isStreamSubject } from "./subjects.ts";
import type { BodyStream, MeshIdentity, MeshResponse } from "./types.ts";

/** The word that a call is over waits this long for NATS to come back, ms; the peer notices silence soon after. */
const farewellWaitMs = 10_000;

/** The calls of a participant that have an open stream; shows life to their peers. */
export class StreamCalls {
  readonly connection: MeshConnection;
  readonly budget: WindowBudget;
  readonly peers: Peers;
  readonly #identity: MeshIdentity;
  readonly #links = new Set<StreamLink>();
  #ticker: Timer | undefined;

  constructor(connection: MeshConnection, identity: MeshIdentity, budget: WindowBudget, peers: Peers) {
    this.connection = connection;
    this.budget = budget;
    this.peers = peers;
    this.#identity = identity;
    connection.onRefusal((subject, reason) => {
      const error = new MeshError("peer", `NATS refuses this participant: ${reason}`);
      for (const link of [...this.#links]) if (link.peer === subject) link.break(error);
    });
  }

  get size(): number {
    return this.#links.size;
  }

  add(link: StreamLink): void {
    this.#links.add(link);
    this.#ticker ??= this.connection.settings.clock.setInterval(() => this.#tick(), streamTickMs);
  }

  delete(link: StreamLink): void {
    this.#links.delete(link);
    if (this.#links.size > 0) return;
    this.#ticker?.cancel();
    this.#ticker = undefined;
  }

  /** Tells the serving side that the call is over, when NATS is there again if need be. */
  cancel(peer: string, replySubject: string): void {
    const tell = (): void => this.connection.publish(peer, encodeCancel(replySubject));
    try {
      tell();
    } catch {
      this.connection
        .readyWithin(farewellWaitMs)
        .then(tell)
        .catch(() => {});
    }
  }

  /** The subject in an accept or answer. Throws for one where this participant has no business. */
  peerOf(frame: Frame): string {
    const to = readTo(frame);
    if (to !== undefined && isStreamSubject(this.#identity.root, to, this.#identity)) return to;
    throw new MeshError("protocol", `the peer names ${JSON.stringify(to)?.slice(0, 100)} as its subject`);
  }

  #tick(): void {
    for (const link of [...this.#links]) link.tick();
  }
}

export class CallerStream {
  readonly #calls: StreamCalls;
  /** Request body that follows once the request is accepted. */
  readonly #body: BodyStream | undefined;
  readonly #onAccepted: (() => void) | undefined;
  #link: StreamLink | undefined;
  #waiting: Waiting | undefined;

  constructor(calls: StreamCalls, body: BodyStream | undefined, onAccepted?: () => void) {
    this.#calls = calls;
    this.#body = body;
    this.#onAccepted = onAccepted;
  }

  /** Reads what comes until the answer. */
  readonly read = (message: Msg, waiting: Waiting): Step<MeshResponse> => {
    if (this.#link === undefined && isNoResponders(message))
      throw new MeshError("no-responders", "no instance of the app is there");
    const link = this.#linkOf(waiting);
    const frame = link.read(message);
    if (frame === undefined) return "more";
    if (frame.kind === FrameKind.accept) {
      this.#accept(link, waiting, frame);
      return "more";
    }
    if (frame.kind === FrameKind.error) throw errorOf(frame);
    if (frame.kind !== FrameKind.response)
      throw new MeshError("protocol", `frame kind ${frame.kind} is no answer to a call`);
    if (readFollowing(frame) !== undefined) return this.answer(frame, waiting);
    this.#forget(new MeshError("cancelled", "the app answered without reading the rest of the body"));
    return { done: readResponse(frame) };
  };

  /** The answer whose body follows in chunks. */
  answer(frame: Frame, waiting: Waiting): Step<MeshResponse> {
    const link = this.#linkOf(waiting);
    this.#setPeer(link, waiting, frame);
    const response = readResponse(frame);
    const body = link.receive(response.body, readFollowing(frame)!);
    this.#calls.add(link);
    waiting.follow({
      onMessage: (message) => this.#onMessage(link, message),
      onFail: (error) => link.break(error),
    });
    return { done: { ...response, body } };
  }

  /** Ends a call that has failed before its answer. */
  end(error: unknown): void {
    const reason = error instanceof Error ? error : new Error(String(error));
    this.#body?.cancel(reason);
    const link = this.#link;
    if (link === undefined || link.over) return;
    this.#forget(reason);
    this.#tellPeer();
  }

  #linkOf(waiting: Waiting): StreamLink {
    this.#waiting = waiting;
    const { connection, budget } = this.#calls;
    this.#link ??= new StreamLink({
      connection,
      budget,
      own: waiting.replySubject,
      onBroken: (error) => this.#drop(error),
      onReaderGone: (reason) => this.#drop(reason),
      onReceived: () => this.#drop(),
    });
    return this.#link;
  }

  #setPeer(link: StreamLink, waiting: Waiting, frame: Frame): void {
    const to = this.#calls.peerOf(frame);
    link.setPeer(to);
    this.#calls.peers.watch(waiting, to);
  }

  #accept(link: StreamLink, waiting: Waiting, frame: Frame): void {
    if (this.#body === undefined || link.peer !== undefined) return;
    this.#setPeer(link, waiting, frame);
    this.#calls.add(link);
    this.#onAccepted?.();
    link.send(this.#body).catch((error: unknown) => {
      // The peer must not take what it has for the whole; what it makes of this is the answer.
      link.publish(encodeErrorOf(error));
    });
  }

  #onMessage(link: StreamLink, message: Msg): void {
    try {
      const frame = link.read(message);
      if (frame?.kind === FrameKind.error) link.break(errorOf(frame));
    } catch (error) {
      link.break(error);
    }
  }

  /** The answer is complete; or an error: nobody wants or can get the rest. */
  #drop(error?: Error): void {
    this.#waiting?.end();
    this.#forget(error ?? new MeshError("cancelled", "the app's answer is complete"));
    if (error !== undefined) this.#tellPeer();
  }

  #forget(error: Error): void {
    const link = this.#link;
    if (link === undefined) return;
    link.end(error);
    this.#calls.delete(link);
  }

  #tellPeer(): void {
    const peer = this.#link?.peer;
    if (peer !== undefined) this.#calls.cancel(peer, this.#waiting!.replySubject);
  }
}
