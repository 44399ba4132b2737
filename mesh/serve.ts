/**
 * The serving side: takes calls of the app's queue group, shows progress while the app works, answers, and drains
 * without losing one (NATS' own drain does not wait for handlers).
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import { tooLarge, type MeshConnection } from "./connection.ts";
import { MeshError } from "./errors.ts";
import { FrameKind, decodeFrame, encodeError, encodeProgress, encodeResponse, readRequest } from "./frame.ts";
import { plainError, plainResponse, readPlainRequest } from "./plain.ts";
import { callFilter, encodeToken, parseCaller } from "./subjects.ts";
import type { MeshIdentity, MeshRequest, MeshResponse, ServeHandler, Served } from "./types.ts";

/** A call that runs longer than this tells its caller so, again and again, ms. */
const progressMs = 5_000;
/** Calls served at once; more are refused as overload. */
const maxInFlight = 10_000;

type InFlight = { readonly abort: AbortController; readonly sinceMs: number; readonly framed: boolean };
type Reply = (response: MeshResponse) => void;

export class Server implements Served {
  readonly #connection: MeshConnection;
  readonly #identity: MeshIdentity;
  readonly #handler: ServeHandler;
  /** Calls by reply subject. */
  readonly #inFlight = new Map<string, InFlight>();
  #subscriptions: Subscription[] = [];
  #progress: Timer | undefined;
  #onIdle: (() => void) | undefined;

  constructor(connection: MeshConnection, identity: MeshIdentity, handler: ServeHandler) {
    this.#connection = connection;
    this.#identity = identity;
    this.#handler = handler;
  }

  get inFlightCount(): number {
    return this.#inFlight.size;
  }

  /** Subscribes; the client repeats it after every reconnect. */
  start(): void {
    const { root, app } = this.#identity;
    const queue = encodeToken(app);
    this.#subscriptions = [
      this.#connection.subscribe(callFilter(root, "rpc", this.#identity), (message) => this.#onFramed(message), queue),
      this.#connection.subscribe(callFilter(root, "call", this.#identity), (message) => this.#onPlain(message), queue),
      this.#connection.subscribe(callFilter(root, "cancel", this.#identity), (message) => this.#onCancel(message)),
    ];
    this.#progress = this.#connection.settings.clock.setInterval(() => this.#showProgress(), progressMs);
  }

  async drain(graceMs: number): Promise<void> {
    const { clock } = this.#connection.settings;
    await Promise.all(this.#subscriptions.map((subscription) => subscription.drain().catch(() => {})));
    if (this.#inFlight.size > 0) {
      await new Promise<void>((resolve) => {
        const limit = clock.setTimeout(resolve, graceMs);
        this.#onIdle = () => {
          limit.cancel();
          resolve();
        };
      });
    }
    this.#progress?.cancel();
    for (const call of this.#inFlight.values()) call.abort.abort(new MeshError("closed", "the sidecar stops"));
    await this.#connection.flush().catch(() => {});
  }

  #onFramed(message: Msg): void {
    const reply = message.reply;
    if (reply === undefined || reply === "") return;
    try {
      const frame = decodeFrame(message.data);
      if (frame.kind !== FrameKind.request) throw new MeshError("protocol", `frame kind ${frame.kind} is no request`);
      const { request } = readRequest(frame);
      this.#admit(message, request, true, (response) => this.#answer(reply, encodeResponse(response)));
    } catch (error) {
      this.#refuse(reply, error);
    }
  }

  #onPlain(message: Msg): void {
    const reply = message.reply;
    if (reply === undefined || reply === "") return;
    const respond = ({ payload, headers }: ReturnType<typeof plainResponse>): void =>
      this.#connection.publish(reply, payload, { headers });
    try {
      this.#admit(message, readPlainRequest(message), false, (response) => respond(plainResponse(response)), (error) =>
        respond(plainError(502, codeOf(error), textOf(error))),
      );
    } catch (error) {
      respond(plainError(400, codeOf(error), textOf(error)));
    }
  }

  #onCancel(message: Msg): void {
    const { kind, head } = decodeFrame(message.data);
    if (kind !== FrameKind.cancel || typeof head["id"] !== "string") return;
    this.#inFlight.get(head["id"])?.abort.abort(new MeshError("cancelled", "the caller gave up"));
  }

  #admit(message: Msg, request: MeshRequest, framed: boolean, reply: Reply, refuse?: (error: unknown) => void): void {
    const id = message.reply!;
    if (this.#inFlight.size >= maxInFlight) {
      throw new MeshError("peer", `this instance already serves ${maxInFlight} calls`);
    }
    const caller = parseCaller(message.subject);
    const abort = new AbortController();
    const { clock, log } = this.#connection.settings;
    this.#inFlight.set(id, { abort, sinceMs: clock.monotonicMs(), framed });
    const run = async (): Promise<void> => {
      try {
        const response = await this.#handler(request, caller, abort.signal);
        reply(response);
      } catch (error) {
        if (refuse === undefined) this.#refuse(id, error);
        else refuse(error);
      } finally {
        this.#inFlight.delete(id);
        if (this.#inFlight.size === 0) this.#onIdle?.();
      }
    };
    run().catch((error: unknown) => log("debug", `answer to ${caller.app} lost: ${textOf(error)}`));
  }

  #answer(reply: string, frame: Uint8Array): void {
    const limit = this.#connection.maxPayloadBytes();
    if (frame.length > limit) throw tooLarge(frame.length, limit);
    this.#connection.publish(reply, frame);
  }

  #refuse(reply: string, error: unknown): void {
    this.#connection.publish(reply, encodeError(codeOf(error), textOf(error)));
  }

  #showProgress(): void {
    const nowMs = this.#connection.settings.clock.monotonicMs();
    for (const [reply, call] of this.#inFlight) {
      if (!call.framed || nowMs - call.sinceMs < progressMs || !this.#connection.connected) continue;
      this.#connection.publish(reply, encodeProgress());
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof MeshError ? error.code : "peer";
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
