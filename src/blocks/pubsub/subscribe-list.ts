/**
 * Asks the app which topics it wants: GET /dapr/subscribe of HTTP apps, ListTopicSubscriptions of gRPC apps.
 */
import { asError } from "../../lib/thrown.ts";
import type { Clock } from "../../../mesh/index.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import type { AppChannel } from "../../app/channel.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { Waits } from "../../resiliency/retry.ts";
import type { Log } from "../../telemetry/log.ts";
import type { BlockHost } from "../block.ts";
import type { RouteRule } from "./routes.ts";
import type { SubscriptionSpec } from "./subscription.ts";

export type AskParts = {
  readonly app: AppChannel;
  readonly appId: string;
  readonly clock: Clock;
  /** What the tries after a failure to reach the app are made of. */
  readonly policies: BlockHost["policies"];
  readonly random: BlockHost["random"];
  readonly log: Log;
};

/** An app that takes longer than this to list its topics counts as not reached. */
const answerTimeoutMs = 30_000;

/**
 * The app's own subscriptions; empty when it has none to tell.
 * Rejects when the app cannot be reached or tells nonsense: then none of its subscriptions may start.
 */
export async function askForSubscriptions(parts: AskParts, signal: AbortSignal): Promise<SubscriptionSpec[]> {
  const ask = parts.app.protocol === "grpc" ? askGrpc : askHttp;
  const { policies, clock, random } = parts;
  const waits = new Waits(policies.builtIn("DaprBuiltInInitializationRetries"), clock, random);
  for (;;) {
    try {
      return await withinLimit(parts, ask, signal);
    } catch (error) {
      if (error instanceof UnusableList || signal.aborted) throw error;
      const waitMs = waits.next();
      if (waitMs === undefined) throw error;
      parts.log.warn(`cannot ask the app for its subscriptions, trying again: ${asError(error).message}`);
      await clock.sleep(waitMs, signal);
    }
  }
}

async function withinLimit(
  parts: AskParts,
  ask: typeof askHttp,
  signal: AbortSignal,
): Promise<SubscriptionSpec[]> {
  const limit = new AbortController();
  const timer = parts.clock.setTimeout(
    () => limit.abort(new Error("the app did not answer in time")),
    answerTimeoutMs,
  );
  try {
    return await ask(parts, AbortSignal.any([signal, limit.signal]));
  } finally {
    timer.cancel();
  }
}

/** What the app listed cannot be used; asking again would not help. */
class UnusableList extends Error {}

const json = jsonFields(
  (problem) => new UnusableList(`the app's answer to GET /dapr/subscribe cannot be used: ${problem}`),
);

async function askHttp({ app, appId, log }: AskParts, signal: AbortSignal): Promise<SubscriptionSpec[]> {
  const headers = ["dapr-app-id", appId, "content-type", "application/json"];
  const answer = await app.http({ verb: "GET", path: "/dapr/subscribe", headers, body: undefined }, signal);
  if (answer.status === 404) {
    log.debug("the app has no /dapr/subscribe: it subscribes to nothing by itself");
    return [];
  }
  if (answer.status !== 200) {
    log.error(
      `the app answered GET /dapr/subscribe with status ${answer.status}: its own subscriptions do not start`,
    );
    return [];
  }
  return readSubscribeList(answer.body.toString(), log);
}

async function askGrpc({ app }: AskParts, signal: AbortSignal): Promise<SubscriptionSpec[]> {
  const path = "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions";
  // An empty message is no bytes at all.
  const message = new Uint8Array();
  try {
    const answer = await app.grpc({ path, metadata: [], message }, signal);
    return (await import("./subscribe-list-grpc.ts")).readGrpcList(answer.message);
  } catch (error) {
    if (error instanceof GrpcStatusError && error.code === GrpcCode.Unimplemented) return [];
    throw error;
  }
}

/** Items of an HTTP app's list; those without any path are left out. Throws when the list cannot be used. */
export function readSubscribeList(text: string, log: Log): SubscriptionSpec[] {
  if (text.trim() === "") return [];
  const items = json.array(parse(text), "the list");
  const specs = items.map((item, index) => readItem(item, `item ${index}`));
  return specs.filter((spec) => {
    if (spec.rules.length > 0) return true;
    log.warn(
      `the app's subscription to topic ${spec.topic} of ${spec.pubsub} names no route: it is left out`,
    );
    return false;
  });
}

function readItem(value: unknown, where: string): SubscriptionSpec {
  const item = json.fields(value, where);
  const routes = json.fields(item["routes"], `${where}.routes`);
  const rules: RouteRule[] = json.array(routes["rules"], `${where}.routes.rules`).map((rule, index) => {
    const at = `${where}.routes.rules[${index}]`;
    const parts = json.fields(rule, at);
    return { match: json.text(parts["match"], `${at}.match`), path: json.text(parts["path"], `${at}.path`) };
  });
  const fallback =
    json.text(routes["default"], `${where}.routes.default`) || json.text(item["route"], `${where}.route`);
  if (fallback !== "") rules.push({ match: "", path: fallback });
  return {
    source: "PROGRAMMATIC",
    pubsub: json.text(item["pubsubname"], `${where}.pubsubname`),
    topic: json.text(item["topic"], `${where}.topic`),
    deadLetterTopic: json.text(item["deadlettertopic"], `${where}.deadLetterTopic`),
    metadata: json.texts(item["metadata"], `${where}.metadata`),
    rules,
    bulk: readBulk(item["bulksubscribe"], `${where}.bulkSubscribe`),
  };
}

function readBulk(value: unknown, where: string): SubscriptionSpec["bulk"] {
  const bulk = json.fields(value, where);
  const maxMessages = json.integer(bulk["maxmessagescount"], `${where}.maxMessagesCount`);
  const maxAwaitMs = json.integer(bulk["maxawaitdurationms"], `${where}.maxAwaitDurationMs`);
  return json.boolean(bulk["enabled"], `${where}.enabled`) ? { maxMessages, maxAwaitMs } : undefined;
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body) as unknown;
  } catch (error) {
    throw new UnusableList(`the app's answer to GET /dapr/subscribe is no JSON: ${asError(error).message}`);
  }
}
