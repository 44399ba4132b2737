/**
 * Delivery of events to the app, from its being ready to its being ill or the sidecar ending, and again. The app is
 * asked once for its subscriptions.
 */
import { asError } from "../../lib/thrown.ts";
import type { AppChannel } from "../../app/channel.ts";
import type { Log } from "../../telemetry/log.ts";
import type { BlockHost } from "../block.ts";
import type { Brokers } from "./broker.ts";
import { deliverBulkToHttpApp } from "./bulk-http-app.ts";
import type { Delivering } from "./handlers.ts";
import { deliverToHttpApp } from "./http-app.ts";
import { askForSubscriptions } from "./subscribe-list.ts";
import { createSubscriber } from "./subscriber.ts";
import type { OpenSubscription, Subscriber } from "./subscriber.ts";
import { chooseSubscriptions, compileSubscription } from "./subscription.ts";
import type { TopicSubscription } from "./subscription.ts";

export type AppDeliveryParts = {
  readonly host: Pick<BlockHost, "options" | "app" | "clock" | "policies" | "random">;
  readonly log: Log;
  readonly brokers: Brokers;
  readonly open: OpenSubscription;
  /** Those of the resource files. */
  readonly declarative: readonly TopicSubscription[];
};

export type AppDelivery = {
  /** Begins, or begins again after `end`. Resolves when each subscription was tried once; problems are logged. */
  start(): Promise<void>;
  /** Ends within `graceMs`, also while `start` runs. */
  end(graceMs: number): Promise<void>;
  /** Follows changed components, and changed subscriptions of the resource files; what ends does so in `graceMs`. */
  refresh(graceMs: number, declarative?: readonly TopicSubscription[]): Promise<void>;
  /** What is subscribed while the app is well; before it was asked, the declarative ones. */
  list(): readonly TopicSubscription[];
};

/** One period in which the app gets events. */
type Period = {
  readonly ending: AbortController;
  readonly subscriber: Subscriber;
  /** Subscriptions were begun, so changes must be followed. */
  begun: boolean;
};

export function createAppDelivery(parts: AppDeliveryParts): AppDelivery {
  const { host, log, brokers, open } = parts;
  const { app, clock, policies, random } = host;
  const { appId } = host.options;
  let { declarative } = parts;
  /** The app's own, once it was asked. */
  let programmatic: readonly TopicSubscription[] | undefined;
  let current: Period | undefined;

  const list = (): readonly TopicSubscription[] => chooseSubscriptions(declarative, programmatic ?? []);

  async function ask(signal: AbortSignal): Promise<void> {
    if (programmatic !== undefined || host.options.app.skipSubscribe || !brokers.any()) return;
    const specs = await askForSubscriptions({ app, appId, clock, policies, random, log }, signal);
    programmatic ??= await Promise.all(specs.map(compileSubscription));
  }

  async function follow(period: Period, graceMs: number): Promise<void> {
    const { ending, subscriber } = period;
    try {
      await ask(ending.signal);
      const deliver = await deliverTo(app);
      if (ending.signal.aborted) return;
      period.begun = true;
      await subscriber.set(list(), deliver, graceMs);
    } catch (error) {
      if (ending.signal.aborted) return;
      log.error(`no subscription of the app starts: ${asError(error).message}`);
    }
  }

  return {
    async start() {
      if (app.protocol === "none") return;
      const subscriber = createSubscriber({ appId, brokers, open, scoped: true, clock, log });
      current = { ending: new AbortController(), subscriber, begun: false };
      await follow(current, 0);
    },
    async refresh(graceMs, changed) {
      if (changed !== undefined) declarative = changed;
      // Before that, the start itself will meet what changed.
      if (current?.begun === true) await follow(current, graceMs);
    },
    async end(graceMs) {
      current?.ending.abort(new Error("delivery to the app ends"));
      await current?.subscriber.stop(graceMs);
    },
    list,
  };
}

/** The gRPC side is imported only for gRPC apps, since generated messages cost start time. */
async function deliverTo(app: AppChannel): Promise<Delivering> {
  if (app.protocol !== "grpc") return { one: deliverToHttpApp(app), many: deliverBulkToHttpApp(app) };
  const [{ deliverToGrpcApp }, { deliverBulkToGrpcApp }] = await Promise.all([
    import("./grpc-app.ts"),
    import("./bulk-grpc-app.ts"),
  ]);
  return { one: deliverToGrpcApp(app), many: deliverBulkToGrpcApp(app) };
}
