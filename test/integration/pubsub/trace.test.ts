// What an event and its delivery say of traces, in each mode of tracing.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { type Event, pubsubComponent } from "./resources.ts";

const trace = "00-0af7651916cd43dd8448eb211c80319c-";
const parent = `${trace}b7ad6b7169203331-01`;
const other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const zero = `00-${"0".repeat(32)}-${"0".repeat(16)}-00`;
const caller = { traceparent: parent, tracestate: "a=1" };

/** `traceid`, `traceparent` and `tracestate` of an event, and the `traceparent` of its delivery; `-` for none. */
type Seen = readonly [traceid: string, traceparent: string, tracestate: string, delivered: string];

/** A value as the tables show it: new ids below the caller's trace are `child`, of a new trace `new`. */
function shown(value: unknown): string {
  if (typeof value !== "string") return "-";
  const known = { [parent]: "parent", [other]: "other", [zero]: "zero" }[value];
  if (known !== undefined || !/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/.test(value)) return known ?? value;
  return value.startsWith(trace) ? "child" : value.startsWith(other.slice(0, 36)) ? "other's child" : "new";
}

const modes: readonly (readonly [string | undefined, Readonly<Record<string, Seen>>])[] = [
  [
    undefined,
    {
      "no trace": ["", "", "", "zero"],
      caller: ["parent", "parent", "a=1", "parent"],
      override: ["other", "other", "q=1", "other"],
      "own event": ["", "", "", "zero"],
      "own traceid": ["other", "-", "", "other"],
      raw: ["-", "-", "-", "-"],
      grpc: ["parent", "parent", "", "parent"],
      "grpc raw": ["parent", "-", "", "parent"],
      bulk: ["parent", "parent", "a=1", "parent"],
    },
  ],
  [
    "0",
    {
      "no trace": ["", "", "", "-"],
      caller: ["", "", "", "-"],
      override: ["other", "other", "q=1", "-"],
      "own event": ["", "", "", "-"],
      "own traceid": ["other", "-", "", "-"],
      raw: ["-", "-", "-", "-"],
      grpc: ["", "", "", "-"],
      "grpc raw": ["", "-", "", "-"],
      bulk: ["", "", "", "-"],
    },
  ],
  [
    "1",
    {
      "no trace": ["new", "new", "", "new"],
      caller: ["child", "child", "a=1", "child"],
      override: ["other", "other", "q=1", "other's child"],
      "own event": ["new", "new", "", "new"],
      "own traceid": ["other", "-", "", "other's child"],
      raw: ["-", "-", "-", "-"],
      grpc: ["child", "child", "", "child"],
      "grpc raw": ["child", "-", "", "child"],
      bulk: ["child", "child", "a=1", "child"],
    },
  ],
];

test.each(modes)("samplingRate %s", async (samplingRate, expected) => {
  await using nats = await startNats();
  const subscriptions = [
    { pubsubname: "pubsub", topic: "t", route: "/t" },
    { pubsubname: "pubsub", topic: "raw", route: "/raw", metadata: { rawPayload: "true" } },
  ];
  await using app = await startApp({ subscriptions, fallback: () => ({}) });
  const tracing = `spec: { tracing: { samplingRate: "${samplingRate}" } }\n`;
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    resources: { "p.yaml": pubsubComponent("pubsub.in-memory") },
    ...(samplingRate !== undefined && {
      config: `apiVersion: dapr.io/v1alpha1\nkind: Configuration\n${tracing}`,
    }),
  });
  using client = grpcClient(sidecar.grpcPort);
  const http = (path: string, body = "x", headers: Record<string, string> = {}) =>
    sidecar.post(`/v1.0/publish/${path}`, body, headers);
  const grpc = (topic: string, metadata: Record<string, string> = {}) =>
    client.unary(
      Dapr.method.publishEvent,
      { pubsubName: "pubsub", topic, data: Buffer.from("x"), metadata },
      { metadata: caller },
    );
  const cloudEvents = { "content-type": "application/cloudevents+json" };
  const override = `metadata.cloudevent.traceparent=${other}&metadata.cloudevent.tracestate=q%3D1`;
  const entries = '[{"entryId":"1","event":"x","contentType":"text/plain"}]';
  const publishes: Readonly<Record<string, () => Promise<unknown>>> = {
    "no trace": () => http("pubsub/t"),
    caller: () => http("pubsub/t", "x", caller),
    override: () => http(`pubsub/t?${override}`),
    "own event": () => http("pubsub/t", '{"traceparent":"mine"}', cloudEvents),
    "own traceid": () => http("pubsub/t", `{"traceid":"${other}"}`, cloudEvents),
    raw: () => http("pubsub/raw?metadata.rawPayload=true", "x", caller),
    grpc: () => grpc("t"),
    "grpc raw": () => grpc("raw", { rawPayload: "true" }),
    bulk: () => http("bulk/pubsub/t", entries, caller),
  };
  const seen: Record<string, Seen> = {};
  for (const [name, publish] of Object.entries(publishes)) {
    const path = name.endsWith("raw") ? "/raw" : "/t";
    const before = app.requestsTo(path).length;
    await publish();
    const request = (await app.received(path, before + 1))[before]!;
    const event = request.json<Event>();
    seen[name] = [
      shown(event["traceid"]),
      shown(event["traceparent"]),
      shown(event["tracestate"]),
      shown(request.headers["traceparent"]),
    ];
    expect(request.headers["tracestate"] ?? "").toBe("");
  }
  expect(seen).toEqual(expected);
});
