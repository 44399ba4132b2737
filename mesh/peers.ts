/**
 * Notices within seconds that the instance which serves a call is gone. Who shows life names a subject of its instance;
 * a message there that nobody subscribes to is answered by NATS itself, at once. Calls that show no life at all are
 * asked for by a roll call of the app's instances. Normative: README.md, "Life of a call".
 */
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError, isMeshError, textOf } from "./errors.ts";
import { decodeFrame, encodeProbe, encodeProgress, readTo } from "./frame.ts";
import { type Mux, type Watched, isNoResponders } from "./mux.ts";
import { instanceOf, streamSubject } from "./subjects.ts";
import type { MeshIdentity, PresenceEntry } from "./types.ts";

/** How often an instance with calls is tried out, ms: one message, however many calls it serves. */
const watchMs = 1_000;
/** How long a roll call collects answers, ms. */
const rollCallMs = 1_000;
/** Calls asked for in one roll call; the others have their turn in the next. */
const maxAsked = 500;
/** Instances of an app that a roll call looks after; with more, silence is left to the liveness limit. */
const maxInstances = 50;

/** The calls under way at one instance. */
export class Peer {
  readonly subject: string;
  readonly calls = new Set<Watched>();
  readonly onEmpty: () => void;

  constructor(subject: string, onEmpty: () => void) {
    this.subject = subject;
    this.onEmpty = onEmpty;
  }

  delete(call: Watched): void {
    this.calls.delete(call);
    if (this.calls.size === 0) this.onEmpty();
  }

  /** NATS says that the instance is no more. */
  gone(): void {
    for (const call of [...this.calls]) call.fail(interrupted());
  }
}

/** The app of silent calls, and where all its instances listen. */
type Silent = {
  readonly target: { readonly namespace: string; readonly app: string };
  readonly subject: string;
  readonly calls: Set<Watched>;
};

export class Peers {
  readonly #connection: MeshConnection;
  readonly #mux: Mux;
  readonly #identity: MeshIdentity;
  readonly #presence: (target: { namespace: string; app: string }) => Promise<PresenceEntry[]>;
  readonly #peers = new Map<string, Peer>();
  readonly #silent = new Map<string, Silent>();
  #ticker: Timer | undefined;

  constructor(
    connection: MeshConnection,
    mux: Mux,
    identity: MeshIdentity,
    presence: (target: { namespace: string; app: string }) => Promise<PresenceEntry[]>,
  ) {
    this.#connection = connection;
    this.#mux = mux;
    this.#identity = identity;
    this.#presence = presence;
  }

  /** The call is served by the instance of this subject. */
  watch(call: Watched, subject: string): void {
    if (call.peer !== undefined) return;
    const instance = instanceOf(subject);
    let peer = this.#peers.get(instance);
    if (peer === undefined) {
      peer = new Peer(subject, () => this.#forget(instance));
      this.#peers.set(instance, peer);
      this.#ticker ??= this.#connection.settings.clock.setInterval(() => this.#tick(), watchMs);
    }
    peer.calls.add(call);
    call.peer = peer;
  }

  /** The call has shown no life so far. Never rejects. */
  ask(call: Watched, target: { namespace: string; app: string }, subject: string): void {
    const silent = this.#silent.get(subject);
    if (silent !== undefined) return void silent.calls.add(call);
    const begun: Silent = { target, subject, calls: new Set([call]) };
    this.#silent.set(subject, begun);
    void this.#rollCall(begun);
  }

  #forget(instance: string): void {
    this.#peers.delete(instance);
    if (this.#peers.size > 0) return;
    this.#ticker?.cancel();
    this.#ticker = undefined;
  }

  #tick(): void {
    for (const peer of this.#peers.values()) {
      const [call] = peer.calls;
      try {
        this.#connection.publish(peer.subject, encodeProgress(), call!.replySubject);
      } catch {
        // NATS is away: all calls end with the connection.
      }
    }
  }

  async #rollCall(silent: Silent): Promise<void> {
    // One turn, so that calls which fell silent together are asked for together.
    await new Promise((resolve) => setImmediate(resolve));
    this.#silent.delete(silent.subject);
    const calls = [...silent.calls];
    const asked = calls.slice(0, maxAsked);
    try {
      if (await this.#allGone(silent, asked)) {
        for (const call of asked) if (call.waits && call.peer === undefined) call.fail(interrupted());
      }
    } catch (error) {
      this.#connection.settings.log("debug", `roll call on ${silent.subject}: ${textOf(error)}`);
    }
    for (const call of calls) call.askAgain();
  }

  /** True when every instance has been heard or is gone: who still shows no life is with none of them. */
  async #allGone({ target, subject }: Silent, calls: readonly Watched[]): Promise<boolean> {
    const heard = await this.#heard(subject, calls);
    if (heard === undefined) return true;
    if (calls.every((call) => !call.waits || call.peer !== undefined)) return false;
    const entries = await this.#presence(target);
    const missing = entries.map(({ instance }) => instance).filter((instance) => !heard.has(instance));
    if (missing.length > maxInstances || (missing.length === 0 && heard.size === 0)) return false;
    const there = await Promise.all(missing.map((instance) => this.#isThere({ ...target, instance })));
    return !there.includes(true);
  }

  /** Instances that answer; undefined when NATS says that there is none. Those with one of the calls show its life. */
  async #heard(subject: string, calls: readonly Watched[]): Promise<Set<string> | undefined> {
    const heard = new Set<string>();
    const ids = calls.map((call) => call.replySubject);
    try {
      await this.#mux.request<never>(subject, encodeProbe(ids), {
        timeoutMs: rollCallMs,
        read: (message) => {
          if (isNoResponders(message)) throw new MeshError("no-responders", "no instance");
          const to = readTo(decodeFrame(message.data));
          if (to !== undefined) heard.add(instanceOf(to).split(".").at(-1)!);
          return "more";
        },
      });
    } catch (error) {
      if (isMeshError(error, "no-responders")) return undefined;
      if (!isMeshError(error, "timeout")) throw error;
    }
    return heard;
  }

  /** False when NATS says that nobody subscribes for the instance; true for silence. */
  async #isThere(instance: { namespace: string; app: string; instance: string }): Promise<boolean> {
    const subject = streamSubject(this.#identity.root, instance, "-", this.#identity);
    try {
      await this.#mux.request<never>(subject, encodeProgress(), {
        timeoutMs: rollCallMs,
        read: (message) => {
          if (isNoResponders(message)) throw new MeshError("no-responders", "no instance");
          return "more";
        },
      });
      return true;
    } catch (error) {
      return !isMeshError(error, "no-responders");
    }
  }
}

function interrupted(): MeshError {
  return new MeshError("interrupted", "the instance that served the call is gone");
}
