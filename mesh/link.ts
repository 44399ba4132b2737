/**
 * One call with a streamed body, as one of its two sides sees it: sends and takes frames of both directions, shows
 * life, and ends everything at once when the peer is gone. The caller (caller-stream.ts) and the serving side
 * (served-streams.ts) add what only they know. Normative: README.md, "Streams".
 */
import type { Msg } from "@nats-io/transport-node";
import type { MeshConnection } from "./connection.ts";
import { MeshError, codeOfPeer, isMeshError, textOf } from "./errors.ts";
import {
  decodeFrame,
  encodeError,
  encodeProgress,
  FrameKind,
  type Following,
  type Frame,
  readCount,
  readError,
  readTrailers,
} from "./frame.ts";
import { isNoResponders } from "./mux.ts";
import { BodyReceiver, BodySender, type WindowBudget } from "./stream.ts";
import type { BodyStream } from "./types.ts";

/** Each side shows life this often while a call has an open stream, ms. */
export const lifeSignMs = 5_000;
/** A sender without credit shows life this often: so it learns soon that there is nobody to give it any, ms. */
export const streamTickMs = 1_000;
const ticksPerSign = lifeSignMs / streamTickMs;
/** Silence for this long ends a call: three missed signs and a second, ms. */
export const livenessMs = 16_000;
/** Longest text of an error; it must fit in a message whatever was thrown. */
const maxErrorChars = 8_192;

export type LinkSettings = {
  readonly connection: MeshConnection;
  readonly budget: WindowBudget;
  /** Subject where the peer's frames come in, and NATS' word that there is no peer. */
  readonly own: string;
  /** Told once when the peer is gone or broke the rules, after both directions have ended. */
  readonly onBroken: (error: MeshError) => void;
  /** Told when the own reader of the received body gives up. */
  readonly onReaderGone: (reason: Error) => void;
  /** Told when the received body is complete. */
  readonly onReceived?: () => void;
};

export class StreamLink {
  readonly #settings: LinkSettings;
  #peer: string | undefined;
  #sender: BodySender | undefined;
  #receiver: BodyReceiver | undefined;
  #over = false;
  #ticks = 0;
  /** When the peer was heard last. */
  aliveMs: number;

  constructor(settings: LinkSettings, peer?: string) {
    this.#settings = settings;
    this.#peer = peer;
    this.aliveMs = settings.connection.settings.clock.monotonicMs();
  }

  get over(): boolean {
    return this.#over;
  }

  /** Subject of the peer's end, once known. */
  get peer(): string | undefined {
    return this.#peer;
  }

  /** Where frames go from now on. */
  setPeer(subject: string): void {
    this.#peer = subject;
  }

  /** Sends a body; resolves when its end is sent. Rejects with what ended it, of which the peer is not told. */
  send(body: BodyStream): Promise<void> {
    const { connection, budget } = this.#settings;
    this.#sender = new BodySender(body, this.publish, () => connection.maxPayloadBytes(), budget);
    return this.#sender.run();
  }

  /** The body that the peer sends. */
  receive(first: Uint8Array, { length }: Following): BodyStream {
    const { budget, onReaderGone } = this.#settings;
    this.#receiver = new BodyReceiver(first, length, this.publish, budget, onReaderGone);
    return this.#receiver.body;
  }

  /**
   * Reads a frame of a stream; gives it back when it is another's. Throws MeshError when the peer is gone or breaks the
   * rules.
   */
  read(message: Msg): Frame | undefined {
    if (message.data.length === 0 && isNoResponders(message)) {
      throw new MeshError("interrupted", "the peer of the stream is gone");
    }
    const frame = decodeFrame(message.data);
    this.aliveMs = this.#settings.connection.settings.clock.monotonicMs();
    switch (frame.kind) {
      case FrameKind.chunk:
        this.#receiver?.onChunk(readCount(frame, "n"), frame.body);
        return undefined;
      case FrameKind.end:
        this.#receiver?.onEnd(readCount(frame, "n"), readTrailers(frame));
        this.#settings.onReceived?.();
        return undefined;
      case FrameKind.credit:
        this.#sender?.grant(readCount(frame, "total"));
        return undefined;
      case FrameKind.progress:
        if (frame.head["n"] !== undefined) this.#receiver?.onProgress(readCount(frame, "n"));
        return undefined;
      default:
        return frame;
    }
  }

  /** The peer's source of the received body failed; the call goes on. */
  failReceived(error: Error): void {
    this.#receiver?.fail(error);
  }

  /** Shows life when it is time, and repeats what the peer must not have missed. To be called every `streamTickMs`. */
  tick(): void {
    this.#ticks++;
    if (this.#over || this.#peer === undefined) return;
    if (this.#ticks % ticksPerSign !== 0 && this.#sender?.stalled !== true) return;
    this.publish(encodeProgress(this.#sender?.next));
    this.#receiver?.repeatCredit();
  }

  /** Ends both directions. The peer is told by who calls this. */
  end(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#sender?.fail(error);
    this.#receiver?.fail(error);
  }

  /** Ends both directions because of the peer. */
  break(thrown: unknown): void {
    if (this.#over) return;
    const error = isMeshError(thrown) ? thrown : new MeshError("protocol", textOf(thrown));
    this.end(error);
    this.#settings.onBroken(error);
  }

  /** Sends a frame to the peer. Ends the link when NATS is away. */
  readonly publish = (frame: Uint8Array, body?: Uint8Array): void => {
    if (this.#peer === undefined || this.#over) return;
    try {
      // With the own subject as reply, NATS tells at once when nobody is there any more.
      this.#settings.connection.publish(this.#peer, frame, this.#settings.own, undefined, body);
    } catch (error) {
      this.break(isMeshError(error, "disconnected") ? new MeshError("interrupted", error.message) : error);
    }
  };
}

/** Error frame with the code and words of anything that was thrown. */
export function encodeErrorOf(error: unknown): Buffer {
  return encodeError(error instanceof MeshError ? error.code : "peer", textOf(error).slice(0, maxErrorChars));
}

/** The error that an error frame carries. */
export function errorOf(frame: Frame): MeshError {
  const { code, message } = readError(frame);
  return new MeshError(codeOfPeer(code), message);
}
