/** Publish and delivery under the policies of a component: what is sent again, and what follows from its end. */
import { describe, expect, it } from "vitest";
import { policiesOf } from "../../../test/contract/policies.ts";
import { testPubSubBlock, type TestedPubSub } from "../../../test/contract/pubsub-block.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";

/** Policies of the component by r (3 tries), p (3 tries by code), t (timeout) and c (breaker). */
const policies = (sides: string): ReturnType<typeof policiesOf> =>
  policiesOf(`  policies:
    timeouts: {t: 100ms}
    retries:
      r: {policy: constant, duration: 1ms, maxRetries: 2}
      p: {policy: constant, duration: 1ms, maxRetries: 2, matching: {httpStatusCodes: "503", gRPCStatusCodes: "9"}}
    circuitBreakers: {c: {trip: consecutiveFailures >= 2}}
  targets:
    components:
      pubsub: {${sides}}
`);

const subscription = { pubsubname: "pubsub", topic: "t", rules: [{ match: "", path: "/t" }] };

type App = (call: number) => { status?: number; body?: Buffer } | Error;

/** A block with one subscription whose app answers as told, by the number of the call. */
async function delivering(
  sides: string,
  app: App,
  extra: Partial<typeof subscription & { deadLetterTopic: string }> = {},
): Promise<TestedPubSub> {
  let calls = 0;
  const tested = await testPubSubBlock({
    app: (request) => (request.path === "/dapr/subscribe" ? { status: 404 } : app(++calls)),
    subscriptions: [{ ...subscription, ...extra }],
    policies: policies(sides),
  });
  await tested.block.appReady?.();
  return tested;
}

const status = (text: string): { status: number; body: Buffer } => ({
  status: 200,
  body: Buffer.from(`{"status":"${text}"}`),
});

function deliveries({ asked }: TestedPubSub): number {
  return asked.filter(({ path }) => path === "/t").length;
}

describe("delivery", () => {
  it.each([
    ["a status", { status: 500 }],
    ["RETRY", status("RETRY")],
    ["no connection", new Error("refused")],
  ])("is repeated after %s, at once and before anything else happens", async (_, failure) => {
    const tested = await delivering("inbound: {retry: r}", (call) => (call < 3 ? failure : { status: 200 }));
    await tested.broker.deliver("t", {});
    expect(deliveries(tested)).toBe(3);
  });

  it.each([
    ["503, which its list holds", { status: 503 }, 3],
    ["500, which it does not", { status: 500 }, 1],
    ["RETRY, for which no list counts", status("RETRY"), 3],
    ["DROP", status("DROP"), 1],
    ["404", { status: 404 }, 1],
  ])("by codes: %s", async (_, answer, tries) => {
    const tested = await delivering("inbound: {retry: p}", () => answer);
    await tested.broker.deliver("t", {}).catch(() => {});
    expect(deliveries(tested)).toBe(tries);
  });

  it("goes back to the broker, or to the dead-letter topic, when no try succeeds", async () => {
    const tested = await delivering("inbound: {retry: r}", () => ({ status: 500 }));
    await expect(tested.broker.deliver("t", {})).rejects.toThrow("the app answered status 500");
    const dead = await delivering("inbound: {retry: r}", () => ({ status: 500 }), {
      deadLetterTopic: "dead",
    });
    await dead.broker.deliver("t", {});
    expect([deliveries(dead), dead.broker.published.map(({ topic }) => topic)]).toEqual([3, ["dead"]]);
  });

  it("ends when the subscription ends, without a dead letter", async () => {
    const ending = new AbortController();
    const app: App = () => {
      ending.abort(new Error("over"));
      return { status: 500 };
    };
    const tested = await delivering("inbound: {retry: r}", app, { deadLetterTopic: "dead" });
    await expect(tested.broker.deliver("t", {}, ending.signal)).rejects.toThrow("status 500");
    expect([deliveries(tested), tested.broker.published]).toEqual([1, []]);
  });

  it("is refused while the breaker is open, so that the broker keeps the event", async () => {
    const tested = await delivering("inbound: {circuitBreaker: c}", () => ({ status: 500 }));
    for (let i = 0; i < 2; i++) await expect(tested.broker.deliver("t", {})).rejects.toThrow("status 500");
    await expect(tested.broker.deliver("t", {})).rejects.toThrow("circuit breaker is open");
    expect(deliveries(tested)).toBe(2);
  });
});

describe("publishing", () => {
  /** A block whose broker fails so many times. */
  async function publishing(
    sides: string,
    times: number,
  ): Promise<{ tested: TestedPubSub; tries: string[] }> {
    const tested = await testPubSubBlock({ policies: policies(sides) });
    const tries: string[] = [];
    let left = times;
    const { publish } = tested.broker;
    tested.broker.publish = async (message, signal) => {
      const text = Buffer.from(message.data).toString();
      tries.push(text.includes("specversion") ? (JSON.parse(text) as { data: string }).data : text);
      if (left-- > 0) throw new Error("no");
      await publish(message, signal);
    };
    return { tested, tries };
  }

  const raw = "?metadata.rawPayload=true";

  it("is repeated", async () => {
    const { tested, tries } = await publishing("outbound: {retry: r}", 2);
    expect((await tested.http("POST", `/v1.0/publish/pubsub/t${raw}`, { body: "x" })).status).toBe(204);
    expect(tries).toEqual(["x", "x", "x"]);
    expect(tested.counted).toEqual(["component_pubsub_egress_count pubsub prod true t"]);
  });

  it("goes by HTTP's code of the failure over HTTP and by gRPC's over gRPC", async () => {
    const overHttp = await publishing("outbound: {retry: p}", 9);
    await overHttp.tested.http("POST", `/v1.0/publish/pubsub/t${raw}`, { body: "x" });
    expect(overHttp.tries).toHaveLength(3);
    const overGrpc = await publishing("outbound: {retry: p}", 9);
    const request = {
      pubsubName: "pubsub",
      topic: "t",
      data: Buffer.from("x"),
      metadata: { rawPayload: "true" },
    };
    await expect(overGrpc.tested.grpc(Dapr.method.publishEvent, request)).rejects.toThrow("no");
    expect(overGrpc.tries).toHaveLength(1);
  });

  it("says that the breaker is open", async () => {
    const { tested } = await publishing("outbound: {circuitBreaker: c}", 9);
    const publish = async (): Promise<string> =>
      (await tested.http("POST", "/v1.0/publish/pubsub/t", { body: "x" })).text;
    await publish();
    await publish();
    expect(await publish()).toContain(
      "error when publishing to topic t in pubsub pubsub: circuit breaker is open",
    );
  });

  const bulkBody = JSON.stringify(
    ["a", "b", "c"].map((id) => ({ entryId: id, event: id, contentType: "text/plain" })),
  );

  it("of many sends only those again that failed", async () => {
    const { tested, tries } = await publishing("outbound: {retry: r}", 2);
    const { status } = await tested.http("POST", "/v1.0/publish/bulk/pubsub/t", { body: bulkBody });
    expect([status, tries]).toEqual([204, ["a", "b", "c", "a", "b"]]);
  });

  it("of many names those that failed to the end, and all when the breaker is open", async () => {
    const { tested } = await publishing("outbound: {retry: r}", 8);
    const first = await tested.http("POST", "/v1.0/publish/bulk/pubsub/t", { body: bulkBody });
    type Failed = { failedEntries: { entryId: string; error: string }[] };
    expect((JSON.parse(first.text) as Failed).failedEntries).toEqual([
      { entryId: "a", error: "no" },
      { entryId: "b", error: "no" },
    ]);
    const { tested: guarded } = await publishing("outbound: {circuitBreaker: c}", 99);
    const bulk = async (): Promise<Failed> =>
      JSON.parse(
        (await guarded.http("POST", "/v1.0/publish/bulk/pubsub/t", { body: bulkBody })).text,
      ) as Failed;
    await bulk();
    await bulk();
    expect((await bulk()).failedEntries.map(({ error }) => error)).toEqual(
      Array.from({ length: 3 }, () => "circuit breaker is open"),
    );
  });
});

it("a bulk delivery sends only those again that failed", async () => {
  const sent: string[][] = [];
  const tested = await testPubSubBlock({
    app: (request) => {
      if (request.path === "/dapr/subscribe") return { status: 404 };
      const { entries } = JSON.parse(Buffer.from(request.body!).toString()) as {
        entries: { entryId: string; event: { id: string } }[];
      };
      sent.push(entries.map(({ event }) => event.id));
      const statuses = entries.map(({ entryId, event }) => ({
        entryId,
        status: event.id === "b" && sent.length < 3 ? "RETRY" : "SUCCESS",
      }));
      return { status: 200, body: Buffer.from(JSON.stringify({ statuses })) };
    },
    subscriptions: [
      { ...subscription, bulkSubscribe: { enabled: true, maxMessagesCount: 3, maxAwaitDurationMs: 1_000 } },
    ],
    policies: policies("inbound: {retry: r}"),
  });
  await tested.block.appReady?.();
  const message = (id: string): { data: Buffer } => ({
    data: Buffer.from(`{"id":"${id}","specversion":"1.0","type":"t","source":"s","data":1}`),
  });
  await Promise.all(["a", "b", "c"].map((id) => tested.broker.deliver("t", message(id))));
  expect(sent).toEqual([["a", "b", "c"], ["b"], ["b"]]);
});
