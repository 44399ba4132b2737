// Subscriptions that cannot be right, by the app, in files and as streams. The rows are docs/hostile-events.md.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, type Sidecar, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { expectTable, grpcAnswer, plain } from "./page.ts";

const pubsub = pubsubComponent("pubsub.nats", { subscriptionScopes: "shop=good,other,a\nb,x y" });
const good = { pubsubname: "pubsub", topic: "good", route: "/good" };

/** What the sidecar logs of it, without what stands before and behind the text; empty when nothing. */
function complaint(logs: string): string {
  const lines = [...logs.matchAll(/level=(?:warning|error|fatal) msg="((?:[^"\\]|\\.)*)"/g)].map(([, text]) =>
    plain(text!.replaceAll('\\"', '"')),
  );
  return lines.find((text) => !/dapr\/config|no app port|NATS/.test(text)) ?? "";
}

type ListRow = readonly [input: string, list: unknown, raw?: string];

const lists: readonly ListRow[] = [
  ["nothing", undefined, ""],
  ["broken JSON", undefined, "["],
  ["an object", {}],
  ["`null`", undefined, "null"],
  ["an entry that is `null`", [null, good]],
  ["an entry that is a text", ["good", good]],
  ["no route", [{ pubsubname: "pubsub", topic: "other" }, good]],
  ["no topic", [{ pubsubname: "pubsub", route: "/x" }, good]],
  ["no pubsubname", [{ topic: "other", route: "/x" }, good]],
  ["a topic that is a number", [{ ...good, topic: 7 }, good]],
  ["a pubsub that is not there", [{ ...good, pubsubname: "nope", topic: "other" }, good]],
  ["a topic that the component does not allow", [{ ...good, topic: "secret" }, good]],
  ["metadata that are no texts", [{ ...good, metadata: { a: 1 } }]],
  ["`rawPayload` that is no boolean", [{ ...good, metadata: { rawPayload: "maybe" } }]],
  [
    "a rule that is no expression",
    [good, { ...good, topic: "other", routes: { rules: [{ match: "event.type ==", path: "/x" }] } }],
  ],
  [
    "a rule with an unknown function",
    [{ ...good, routes: { rules: [{ match: "launch(event)", path: "/x" }], default: "/good" } }],
  ],
  ["a rule without a path", [{ ...good, routes: { rules: [{ match: "true" }], default: "/good" } }]],
  ["`routes` that is a list", [{ ...good, routes: [] }]],
  [
    "a negative size of batches",
    [{ ...good, bulkSubscribe: { enabled: true, maxMessagesCount: -5, maxAwaitDurationMs: -1 } }],
  ],
  [
    "a size of batches that is a text",
    [{ ...good, bulkSubscribe: { enabled: true, maxMessagesCount: "many" } }],
  ],
  ["a topic with line breaks", [{ ...good, topic: "a\nb" }]],
  ["a route that climbs: `/../../x`", [{ ...good, route: "/../../x" }]],
  ["a route with blanks and line breaks", [{ ...good, route: "/a b\r\nX: y" }]],
  ["one topic twice", [{ ...good, route: "/first" }, good]],
];

test("lists of an app", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => ({}) });
  let answer = "[]";
  let asked = 0;
  app.on("/dapr/subscribe", () => {
    asked++;
    return { headers: { "content-type": "application/json" }, body: answer };
  });
  const resources = { "p.yaml": pubsub };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  const rows: string[][] = [];
  for (const [input, list, raw] of lists) {
    answer = raw ?? JSON.stringify(list);
    const from = sidecar.logs().length;
    asked = 0;
    // A new life in the same process: the app is asked anew.
    sidecar.signal("SIGHUP");
    rows.push([input, ...(await subscribed(sidecar, from, () => asked > 0))]);
  }
  expectTable("Subscriptions of an app", ["The app's list", "Subscribed", "In the log"], rows);
}, 400_000);

/** What the metadata list and the log says, once the app was asked and the log is quiet. `from`: of this life's log. */
async function subscribed(sidecar: Sidecar, from: number, asked: () => boolean): Promise<[string, string]> {
  let before = "";
  await eventually(
    () => {
      const logs = sidecar.logs();
      const quiet = asked() && logs.includes("dapr initialized", from) && logs === before;
      before = logs;
      expect(quiet).toBe(true);
    },
    { everyMs: 400, timeoutMs: 60_000 },
  );
  const { subscriptions = [] } = (await sidecar.get("/v1.0/metadata")).json<{
    subscriptions?: { topic: string; rules?: { path?: string }[] }[];
  }>();
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  const own = sidecar.logs().slice(from);
  const running = own.match(/app is subscribed to topic/g)?.length ?? 0;
  const listed = subscriptions.map(
    ({ topic, rules = [] }) => `${topic} -> ${rules.map(({ path }) => path ?? "").join(" ")}`,
  );
  return [
    listed.length === 0 ? "nothing" : `${plain(listed.join(", "))} (${running} running)`,
    complaint(own),
  ];
}

const head = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: { name: s }\n";

const files: readonly (readonly [input: string, text: string])[] = [
  ["no spec", head],
  ["an unknown version", head.replace("v2alpha1", "v9") + "spec: { pubsubname: pubsub, topic: good }\n"],
  ["no topic", `${head}spec: { pubsubname: pubsub, routes: { default: /x } }\n`],
  ["no pubsubname", `${head}spec: { topic: good, routes: { default: /x } }\n`],
  ["no route", `${head}spec: { pubsubname: pubsub, topic: good }\n`],
  ["`route` of the other version", `${head}spec: { pubsubname: pubsub, topic: good, route: /x }\n`],
  [
    "a rule that is no expression",
    `${head}spec: { pubsubname: pubsub, topic: good, routes: { rules: [{ match: "event.type ==", path: /x }] } }\n`,
  ],
  ["`routes` that is a list", `${head}spec: { pubsubname: pubsub, topic: good, routes: [] }\n`],
  [
    "`scopes` of another app",
    `${head}spec: { pubsubname: pubsub, topic: good, routes: { default: /x } }\nscopes: [other]\n`,
  ],
  [
    "a misspelt field",
    `${head}spec: { pubsubname: pubsub, topic: good, routes: { default: /x }, deadLetter: d }\n`,
  ],
  ["broken YAML", `${head}spec: { pubsubname: [\n`],
];

test("files", async () => {
  await using nats = await startNats();
  const rows: string[][] = [];
  for (const [input, text] of files) {
    await using app = await startApp({ fallback: () => ({}) });
    await using sidecar = await startSidecar({
      appId: "shop",
      nats,
      resources: { "p.yaml": pubsub, "s.yaml": text },
      appPort: app.port,
      wait: "none",
    });
    await eventually(
      () => expect(!sidecar.running() || sidecar.logs().includes("dapr initialized")).toBe(true),
      {
        timeoutMs: 40_000,
      },
    );
    let outcome: string;
    if (sidecar.running()) {
      const { subscriptions = [] } = (await sidecar.get("/v1.0/metadata")).json<{
        subscriptions?: { topic: string; rules?: { path?: string }[] }[];
      }>();
      outcome =
        subscriptions
          .map(({ topic, rules = [] }) => `${topic} -> ${rules.map(({ path }) => path).join(" ")}`)
          .join() || "nothing";
    } else outcome = `the start ends with code ${await sidecar.exited}`;
    rows.push([input, outcome, complaint(sidecar.logs())]);
  }
  expectTable("Subscriptions in files", ["The file", "Subscribed", "In the log"], rows);
}, 400_000);

test("streams", async () => {
  await using nats = await startNats();
  const component = pubsubComponent("pubsub.nats", { protectedTopics: "secret" });
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "p.yaml": component } });
  using grpc = grpcClient(sidecar.grpcPort);
  type First = Parameters<ReturnType<typeof open>["send"]>[0];
  const open = () => grpc.stream(Dapr.method.subscribeTopicEventsAlpha1, { timeoutMs: 30_000 });
  const initial = (value: Record<string, unknown>): First => ({
    subscribeTopicEventsRequestType: { case: "initialRequest", value },
  });
  const processed = (value: Record<string, unknown>): First => ({
    subscribeTopicEventsRequestType: { case: "eventProcessed", value },
  });
  const begin = initial({ pubsubName: "pubsub", topic: "orders" });
  const streams: readonly (readonly [input: string, messages: readonly First[]])[] = [
    ["nothing, and the end", []],
    ["an empty message", [{}]],
    ["a verdict before the initial request", [processed({ id: "1" })]],
    ["no pubsub name", [initial({ topic: "orders" })]],
    ["no topic", [initial({ pubsubName: "pubsub" })]],
    ["a pubsub that is not there", [initial({ pubsubName: "nope", topic: "orders" })]],
    ["a topic that the component does not allow", [initial({ pubsubName: "pubsub", topic: "secret" })]],
    ["a topic of 5,000 characters", [initial({ pubsubName: "pubsub", topic: "t".repeat(5_000) })]],
    ["a second initial request", [begin, begin]],
    ["a verdict on an event that is not there, and the end", [begin, processed({ id: "nobody" })]],
  ];
  const rows: string[][] = [];
  for (const [input, messages] of streams) {
    const stream = open();
    for (const message of messages) stream.send(message);
    stream.end();
    const drained = (async (): Promise<void> => {
      while ((await stream.next()) !== undefined);
    })();
    rows.push([input, await grpcAnswer(drained)]);
  }
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  expectTable("Streams", ["The client sends", "gRPC"], rows);
});
