/**
 * Events of a shared consumer for topics that this member does not handle: asks the other members of the group, and
 * tells which topics nobody has wanted for a while. Normative: README.md, "Topics".
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import { isMeshError, MeshError, textOf } from "./errors.ts";
import type { JetStream } from "./jetstream.ts";
import { isNoResponders } from "./mux.ts";
import { isReplySubject } from "./subjects.ts";
import type { SharedTimes } from "./types.ts";

/**
 * How much longer it takes with each delivery until such an event comes again, and at most, ms. Doubled times would
 * make an event that meets the wrong one of two members some times in a row wait for half a minute.
 */
const delayStepMs = 200;
const maxDelayMs = 30_000;
/** A topic of which no event has come for this long is somebody else's again, ms. */
const forgetMs = 4 * maxDelayMs;
/** Questions without any answer before a topic is unwanted. */
const minAsks = 4;
/** Filters of one question; topics under watch. */
const maxAsked = 500;
const maxWatched = 10_000;

type Watched = { readonly sinceMs: number; lastMs: number; asks: number };
type Question = { readonly filters: readonly string[] };

export class Unhandled {
  readonly #js: JetStream;
  readonly #subject: string;
  readonly #times: SharedTimes;
  readonly #handles: (filter: string) => boolean;
  readonly #leave: (filters: readonly string[]) => Promise<void>;
  readonly #changed: () => void;
  readonly #watched = new Map<string, Watched>();
  #answers: Subscription | undefined;
  #timer: Timer | undefined;

  /**
   * `handles`: whether this member does; `leave`: what to do with topics that nobody wants; `changed`: somebody says
   * that topics have left the consumer.
   */
  constructor(
    js: JetStream,
    subject: string,
    times: SharedTimes,
    handles: (filter: string) => boolean,
    leave: (filters: readonly string[]) => Promise<void>,
    changed: () => void,
  ) {
    this.#js = js;
    this.#subject = subject;
    this.#times = times;
    this.#handles = handles;
    this.#leave = leave;
    this.#changed = changed;
  }

  /** Answers others from now on. Call while NATS is connected. */
  async listen(): Promise<void> {
    if (this.#answers !== undefined) return;
    this.#answers = this.#js.connection.subscribe(this.#subject, (message) => this.#answer(message));
    await this.#js.connection.flush();
  }

  stop(): void {
    this.#answers?.unsubscribe();
    this.#answers = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#watched.clear();
  }

  /** An event of this filter came here. Returns when it shall come again, ms from now. */
  note(filter: string, deliveries: number): number {
    const { clock, random } = this.#js.connection.settings;
    const nowMs = clock.monotonicMs();
    const known = this.#watched.get(filter);
    if (known !== undefined) known.lastMs = nowMs;
    else if (this.#watched.size < maxWatched)
      this.#watched.set(filter, { sinceMs: nowMs, lastMs: nowMs, asks: 0 });
    this.#soon();
    // NATS serves members in turn: events that come back together would meet the same members again and again.
    return Math.min(delayStepMs * deliveries, maxDelayMs) * (0.5 + random());
  }

  /** Those that some other member handles. Rejects when that cannot be known now. */
  async ask(filters: readonly string[]): Promise<Set<string>> {
    const handled = new Set<string>();
    for (let i = 0; i < filters.length; i += maxAsked) {
      const question: Question = { filters: filters.slice(i, i + maxAsked) };
      try {
        await this.#js.mux.request<never>(this.#subject, Buffer.from(JSON.stringify(question)), {
          timeoutMs: this.#times.answerMs,
          read: (message) => {
            if (isNoResponders(message)) throw new MeshError("no-responders", "no member listens");
            for (const filter of readQuestion(message.data)) handled.add(filter);
            return "more";
          },
        });
      } catch (error) {
        if (!isMeshError(error, "timeout")) throw error;
      }
    }
    return handled;
  }

  #answer(message: Msg): void {
    const { reply } = message;
    if (reply === undefined || reply === "") return this.#changed();
    const [root = ""] = this.#subject.split(".");
    if (!isReplySubject(root, reply)) return;
    const filters = readQuestion(message.data).filter(this.#handles);
    if (filters.length > 0)
      this.#js.connection.publish(reply, Buffer.from(JSON.stringify({ filters } satisfies Question)));
  }

  #soon(): void {
    const { clock, random } = this.#js.connection.settings;
    // Members that saw an event of the same topic do not all ask at once.
    const waitMs = this.#times.askMs * (0.75 + random() / 2);
    this.#timer ??= clock.setTimeout(() => void this.#look(), waitMs);
  }

  async #look(): Promise<void> {
    const { clock, log } = this.#js.connection.settings;
    const { unwantedMs } = this.#times;
    const goneMs = clock.monotonicMs() - forgetMs;
    for (const [filter, { lastMs }] of this.#watched) if (lastMs < goneMs) this.#watched.delete(filter);
    const filters = [...this.#watched.keys()];
    try {
      const handled = filters.length === 0 ? new Set() : await this.ask(filters);
      const unwanted = filters.filter((filter) => {
        const watched = this.#watched.get(filter);
        if (watched === undefined) return false;
        if (handled.has(filter) || this.#handles(filter)) return this.#watched.delete(filter) && false;
        return ++watched.asks >= minAsks && clock.monotonicMs() - watched.sinceMs >= unwantedMs;
      });
      if (unwanted.length > 0) await this.#leave(unwanted);
      for (const filter of unwanted) this.#watched.delete(filter);
    } catch (error) {
      log("warn", `topics that nobody handles stay with their group for now: ${textOf(error)}`);
    }
    if (this.#timer === undefined) return;
    this.#timer = undefined;
    if (this.#watched.size > 0) this.#soon();
  }
}

/** Tells all members of the group that topics have left its shared consumer. */
export function tellChanged(js: JetStream, subject: string): void {
  js.connection.publish(subject, new Uint8Array(0));
}

/** Empty for what no member wrote. */
function readQuestion(data: Uint8Array): string[] {
  try {
    const { filters } = JSON.parse(Buffer.from(data).toString()) as { readonly filters?: unknown };
    return Array.isArray(filters) ? filters.filter((it) => typeof it === "string").slice(0, maxAsked) : [];
  } catch {
    return [];
  }
}
