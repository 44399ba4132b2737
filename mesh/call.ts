/**
 * The calling side: one framed request to an app's queue group, answered through the mux. When no sidecar serves the
 * app, the plain-NATS form is tried, so that a program with only a NATS client can be an app. Normative: README.md.
 */
import type { Msg } from "@nats-io/transport-node";
import type { MeshConnection } from "./connection.ts";
import { MeshError, cancelledBy, codeOfPeer, isMeshError } from "./errors.ts";
import { FrameKind, decodeFrame, encodeCancel, encodeRequest, readError, readResponse } from "./frame.ts";
import { type Mux, type Step, isNoResponders } from "./mux.ts";
import { plainRequest, readPlainResponse } from "./plain.ts";
import { callSubject } from "./subjects.ts";
import type { CallOptions, MeshIdentity, MeshRequest, MeshResponse } from "./types.ts";

/** A serving side that works shows progress every 5 s (serve.ts); silence for this long ends the call. */
export const livenessMs = 16_000;
/** A call waits this long for NATS to come back before it fails as not sent. */
const reconnectWaitMs = 5_000;
/** Wait before an app is looked for again that was not there right after NATS came back, ms. */
const settleWaitMs = 50;
/** Limit of a plain-NATS app that has no way to show progress. */
const plainTimeoutMs = 60_000;
/** Subjects remembered, one per called app. */
const maxSubjects = 1_000;

type Subjects = { readonly rpc: string; readonly call: string; readonly cancel: string };

export class Caller {
  readonly #connection: MeshConnection;
  readonly #mux: Mux;
  readonly #identity: MeshIdentity;
  readonly #subjects = new Map<string, Subjects>();

  constructor(connection: MeshConnection, mux: Mux, identity: MeshIdentity) {
    this.#connection = connection;
    this.#mux = mux;
    this.#identity = identity;
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
    { timeoutMs, signal }: CallOptions,
    subjects: Subjects,
    endMs: number,
  ): Promise<MeshResponse> {
    const { clock } = this.#connection.settings;
    const leftMs = (): number => (timeoutMs > 0 ? Math.max(1, endMs - clock.monotonicMs()) : 0);
    if (!this.#connection.connected) {
      await this.#connection.readyWithin(Math.min(leftMs() || reconnectWaitMs, reconnectWaitMs), signal);
    }
    const left = leftMs();
    try {
      return await this.#mux.request(subjects.rpc, encodeRequest(request, left), {
        timeoutMs: left,
        idleMs: livenessMs,
        signal,
        read: readReply,
        onGiveUp: (replySubject) => this.#cancel(subjects.cancel, replySubject),
      });
    } catch (error) {
      if (!isMeshError(error, "no-responders")) throw error;
      return await this.#callPlain(subjects.call, request, leftMs() || plainTimeoutMs, signal);
    }
  }

  async #callPlain(
    subject: string,
    request: MeshRequest,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<MeshResponse> {
    const { payload, headers } = plainRequest(request);
    return this.#mux.request(subject, payload, { headers, timeoutMs, signal, read: readPlainReply });
  }

  #cancel(subject: string, replySubject: string): void {
    try {
      this.#connection.publish(subject, encodeCancel(replySubject));
    } catch {
      // NATS is away: the serving side loses this call by itself.
    }
  }

  #subjectsOf(target: { namespace: string; app: string }): Subjects {
    const key = `${target.namespace}\u0000${target.app}`;
    let subjects = this.#subjects.get(key);
    if (subjects === undefined) {
      const of = (form: "rpc" | "call" | "cancel"): string =>
        callSubject(this.#identity.root, form, target, this.#identity);
      subjects = { rpc: of("rpc"), call: of("call"), cancel: of("cancel") };
      if (this.#subjects.size >= maxSubjects) this.#subjects.clear();
      this.#subjects.set(key, subjects);
    }
    return subjects;
  }
}

function readReply(message: Msg): Step<MeshResponse> {
  if (isNoResponders(message)) throw noResponders();
  const frame = decodeFrame(message.data);
  if (frame.kind === FrameKind.response) return { done: readResponse(frame) };
  if (frame.kind === FrameKind.progress) return "more";
  if (frame.kind === FrameKind.error) {
    const { code, message: text } = readError(frame);
    throw new MeshError(codeOfPeer(code), text);
  }
  throw new MeshError("protocol", `frame kind ${frame.kind} is no answer to a call`);
}

function readPlainReply(message: Msg): Step<MeshResponse> {
  if (isNoResponders(message)) throw noResponders();
  return { done: readPlainResponse(message) };
}

function noResponders(): MeshError {
  return new MeshError("no-responders", "no instance of the app is there");
}
