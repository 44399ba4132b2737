/**
 * The calling side: one framed request to an app's queue group, answered through the mux. When no sidecar serves the
 * app, the plain-NATS form is tried, so that a program with only a NATS client can be an app. Normative: README.md.
 */
import type { Msg } from "@nats-io/transport-node";
import type { MeshConnection } from "./connection.ts";
import { MeshError, isMeshError, type MeshErrorCode } from "./errors.ts";
import { FrameKind, decodeFrame, encodeCancel, encodeRequest, readError, readResponse } from "./frame.ts";
import { type Mux, type Step, isNoResponders } from "./mux.ts";
import { plainRequest, readPlainResponse } from "./plain.ts";
import { callSubject } from "./subjects.ts";
import type { CallOptions, MeshIdentity, MeshRequest, MeshResponse } from "./types.ts";

/** A serving side that works shows progress every 5 s (serve.ts); silence for this long ends the call. */
export const livenessMs = 16_000;
/** A call waits this long for NATS to come back before it fails as not sent. */
const reconnectWaitMs = 5_000;
/** Limit of a plain-NATS app that has no way to show progress. */
const plainTimeoutMs = 60_000;
/** Subjects remembered, one per called app. */
const maxSubjects = 1_000;

export class Caller {
  readonly #connection: MeshConnection;
  readonly #mux: Mux;
  readonly #identity: MeshIdentity;
  readonly #subjects = new Map<string, { rpc: string; call: string; cancel: string }>();

  constructor(connection: MeshConnection, mux: Mux, identity: MeshIdentity) {
    this.#connection = connection;
    this.#mux = mux;
    this.#identity = identity;
  }

  async call(request: MeshRequest, options: CallOptions): Promise<MeshResponse> {
    const waitMs = options.timeoutMs > 0 ? Math.min(options.timeoutMs, reconnectWaitMs) : reconnectWaitMs;
    if (!this.#connection.connected) await this.#connection.readyWithin(waitMs, options.signal);
    const subjects = this.#subjectsOf(options);
    try {
      return await this.#mux.request(subjects.rpc, encodeRequest(request, options.timeoutMs), {
        timeoutMs: options.timeoutMs,
        idleMs: livenessMs,
        signal: options.signal,
        read: readReply,
        onGiveUp: (replySubject) => this.#cancel(subjects.cancel, replySubject),
      });
    } catch (error) {
      if (!isMeshError(error, "no-responders")) throw error;
      return this.#callPlain(subjects.call, request, options, error);
    }
  }

  async #callPlain(subject: string, request: MeshRequest, options: CallOptions, error: MeshError): Promise<MeshResponse> {
    const { payload, headers } = plainRequest(request);
    return this.#mux.request(subject, payload, {
      headers,
      timeoutMs: options.timeoutMs > 0 ? options.timeoutMs : plainTimeoutMs,
      signal: options.signal,
      read: (message) => {
        if (isNoResponders(message)) throw error;
        return { done: readPlainResponse(message) };
      },
    });
  }

  #cancel(subject: string, replySubject: string): void {
    try {
      this.#connection.publish(subject, encodeCancel(replySubject));
    } catch {
      // NATS is away: the serving side loses this call by itself.
    }
  }

  #subjectsOf(target: { namespace: string; app: string }): { rpc: string; call: string; cancel: string } {
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

const knownCodes = new Set<string>(["timeout", "cancelled", "too-large", "peer", "protocol", "closed"]);

function readReply(message: Msg): Step<MeshResponse> {
  if (isNoResponders(message)) throw new MeshError("no-responders", "no instance of the app is there");
  const frame = decodeFrame(message.data);
  if (frame.kind === FrameKind.response) return { done: readResponse(frame) };
  if (frame.kind === FrameKind.progress) return "more";
  if (frame.kind === FrameKind.error) {
    const { code, message: text } = readError(frame);
    throw new MeshError(knownCodes.has(code) ? (code as MeshErrorCode) : "peer", text);
  }
  throw new MeshError("protocol", `frame kind ${frame.kind} is no answer to a call`);
}
