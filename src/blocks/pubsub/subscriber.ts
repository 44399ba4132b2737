/**
 * Keeps the app's subscriptions running: starts them, tries again for ever where the broker refuses, follows changes of
 * components and subscriptions, stops them.
 */
import { asError } from "../../lib/thrown.ts";
import type { Clock } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Broker, Brokers } from "./broker.ts";
import type { Delivering } from "./handlers.ts";
import { RequestRefused, type Subscription } from "./port.ts";
import { describeSubscription, type TopicSubscription } from "./subscription.ts";

/** Opens a subscription at its broker. `D` is where its messages go. Rejects with the component's error. */
export type OpenSubscription<D = Delivering> = (
  broker: Broker,
  subscription: TopicSubscription,
  deliver: D,
) => Promise<Subscription>;

export type SubscriberParts<D> = {
  readonly appId: string;
  readonly brokers: Brokers;
  readonly open: OpenSubscription<D>;
  /** False for topics that are the sidecar's own affair: what the app may subscribe to says nothing of them. */
  readonly scoped: boolean;
  readonly clock: Clock;
  readonly log: Log;
};

export type Subscriber<D = Delivering> = {
  /**
   * Runs these from now on. What is not among them, or has another component now, is ended within `graceMs` before.
   * Resolves when each new one has been tried once; those that failed are tried on in the background.
   */
  set(subscriptions: readonly TopicSubscription[], deliver: D, graceMs: number): Promise<void>;
  /** Ends all for good, waiting for running handlers up to `graceMs`. */
  stop(graceMs: number): Promise<void>;
};

/** Waits between tries to subscribe, ms: doubled each time up to the limit. */
const firstRetryMs = 500;
const maxRetryMs = 30_000;

export function createSubscriber<D = Delivering>(parts: SubscriberParts<D>): Subscriber<D> {
  const { appId, brokers, scoped, clock, log } = parts;
  const running = new Map<string, Running<D>>();
  /** Why a subscription does not run, so that it is told once. */
  const told = new Map<string, string>();
  let stopped = false;
  let turn: Promise<void> = Promise.resolve();

  function brokerOf(key: string, { pubsub, topic }: TopicSubscription): Broker | undefined {
    const broker = brokers.get(pubsub);
    let fault: string | undefined;
    if (broker === undefined) fault = `subscription to topic ${topic} waits: there is no pubsub ${pubsub}`;
    else if (scoped && !broker.scopes.maySubscribe(topic))
      fault = `subscription to topic '${topic}' on pubsub '${pubsub}' is not allowed for app id ${appId}`;
    if (fault === undefined) told.delete(key);
    else if (told.get(key) !== fault) log[broker === undefined ? "warn" : "error"](fault);
    if (fault !== undefined) told.set(key, fault);
    return fault === undefined ? broker : undefined;
  }

  async function change(
    subscriptions: readonly TopicSubscription[],
    deliver: D,
    graceMs: number,
  ): Promise<void> {
    if (stopped) return;
    const wanted = new Map<string, Running<D>>();
    for (const subscription of subscriptions) {
      const key = keyOf(subscription);
      const broker = brokerOf(key, subscription);
      if (broker !== undefined) wanted.set(key, new Running(parts, broker, subscription));
    }
    const ending = [...running].filter(([key, it]) => !it.isSame(wanted.get(key)));
    for (const [key] of ending) running.delete(key);
    await Promise.all(ending.map(([, it]) => it.end(graceMs)));
    if (stopped) return;
    const beginning = [...wanted].filter(([key]) => !running.has(key));
    for (const [key, it] of beginning) running.set(key, it);
    await Promise.all(beginning.map(([, it]) => it.begin(deliver, clock)));
  }

  return {
    set(subscriptions, deliver, graceMs) {
      turn = turn.then(() => change(subscriptions, deliver, graceMs));
      return turn;
    },
    async stop(graceMs) {
      stopped = true;
      await Promise.all([...running.values()].map((it) => it.end(graceMs)));
      running.clear();
    },
  };
}

/** One subscription at one component, from its first try to its end. */
class Running<D> {
  readonly #parts: SubscriberParts<D>;
  readonly #broker: Broker;
  readonly #subscription: TopicSubscription;
  readonly #ended = new AbortController();
  #opened: Subscription | undefined;

  constructor(parts: SubscriberParts<D>, broker: Broker, subscription: TopicSubscription) {
    this.#parts = parts;
    this.#broker = broker;
    this.#subscription = subscription;
  }

  isSame(other: Running<D> | undefined): boolean {
    if (other === undefined || other.#broker !== this.#broker) return false;
    return other.#subscription === this.#subscription || textOf(other) === textOf(this);
    function textOf(it: Running<D>): string {
      return (
        JSON.stringify(describeSubscription(it.#subscription)) + JSON.stringify(it.#subscription.bulk ?? null)
      );
    }
  }

  /** Resolves after the first try; goes on trying until it runs or ends. */
  async begin(deliver: D, clock: Clock): Promise<void> {
    if (await this.#attempt(deliver)) return;
    // Ends only with the subscription, whose abort is the one thing that it can reject with.
    this.#keepTrying(deliver, clock).catch(() => {});
  }

  async end(graceMs: number): Promise<void> {
    this.#ended.abort(new Error("the subscription ends"));
    await this.#opened?.stop(graceMs);
  }

  async #keepTrying(deliver: D, clock: Clock): Promise<void> {
    for (let delayMs = firstRetryMs; ; delayMs = Math.min(delayMs * 2, maxRetryMs)) {
      await clock.sleep(delayMs, this.#ended.signal);
      if (await this.#attempt(deliver)) return;
    }
  }

  /** True when it runs now, or never will. */
  async #attempt(deliver: D): Promise<boolean> {
    const { open, scoped, log } = this.#parts;
    const { name } = this.#broker;
    const { topic } = this.#subscription;
    try {
      const opened = await open(this.#broker, this.#subscription, deliver);
      this.#opened = opened;
      if (this.#ended.signal.aborted) await opened.stop(0);
      log.info(`${scoped ? "app" : "outbox"} is subscribed to topic ${topic} through pubsub=${name}`);
      return true;
    } catch (error) {
      log.error(`cannot subscribe to topic ${topic} of ${name}: ${asError(error).message}`);
      return this.#ended.signal.aborted || error instanceof RequestRefused;
    }
  }
}

function keyOf({ pubsub, topic }: TopicSubscription): string {
  return JSON.stringify([pubsub, topic]);
}
