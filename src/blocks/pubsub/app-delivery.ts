/**
 * Delivery of events to the app, from its being ready to its being ill or the sidecar ending, and again. The app is
 * asked once for its subscriptions.
 */
import type { AppChannel } from "../../app/channel.ts";
import type { Log } from "../../telemetry/log.ts";
import type { BlockHost } from "../block.ts";
import type { Brokers } from "./broker.ts";
import { deliverBulkToHttpApp } from "./bulk-http-app.ts";
import type { Delivering } from "./handlers.ts";
import { deliverToHttpApp } from "./http-app.ts";
import { asError } from "./publish.ts";
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
  /** What is subscribed while the app is well; before it was asked, the declarative ones. */
  list(): readonly TopicSubscription[];
};

export function createAppDelivery({ host, log, brokers, open, declarative }: AppDeliveryParts): AppDelivery {
  const { app, clock, policies, random } = host;
  const { appId } = host.options;
  const unasked = chooseSubscriptions(declarative, []);
  let chosen: readonly TopicSubscription[] | undefined;
  let current: { readonly ending: AbortController; readonly subscriber: Subscriber } | undefined;

  async function choose(signal: AbortSignal): Promise<readonly TopicSubscription[]> {
    if (host.options.app.skipSubscribe || !brokers.any()) return unasked;
    const specs = await askForSubscriptions({ app, appId, clock, policies, random, log }, signal);
    const programmatic = await Promise.all(specs.map(compileSubscription));
    return chooseSubscriptions(declarative, programmatic);
  }

  return {
    async start() {
      if (app.protocol === "none") return;
      const ending = new AbortController();
      const subscriber = createSubscriber({ appId, brokers, open, clock, log });
      current = { ending, subscriber };
      try {
        chosen ??= await choose(ending.signal);
        const deliver = await deliverTo(app);
        if (chosen.length > 0 && !ending.signal.aborted) await subscriber.start(chosen, deliver);
      } catch (error) {
        if (ending.signal.aborted) return;
        log.error(`no subscription of the app starts: ${asError(error).message}`);
      }
    },
    async end(graceMs) {
      current?.ending.abort(new Error("delivery to the app ends"));
      await current?.subscriber.stop(graceMs);
    },
    list: () => chosen ?? unasked,
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
