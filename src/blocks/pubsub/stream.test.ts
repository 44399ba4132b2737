import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { testPubSubBlock } from "../../../test/contract/pubsub-block.ts";
import type { PubSubBlockOptions, TestedPubSub } from "../../../test/contract/pubsub-block.ts";
import { eventually } from "../../../test/kit/eventually.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import * as appcallback from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import * as pubsub from "../../../proto/gen/dapr/proto/runtime/v1/pubsub_pb.ts";
import { toApiError } from "../../api/errors.ts";

const { TopicEventResponse_TopicEventResponseStatus: Status } = appcallback;
const { SubscribeTopicEventsRequestAlpha1Schema: RequestSchema } = pubsub;

type Request = MessageInitShape<typeof RequestSchema>["subscribeTopicEventsRequestType"];

/** A client's half of a stream. */
class Client implements AsyncIterable<unknown> {
  readonly tested: TestedPubSub;
  readonly abort = new AbortController();
  #requests: (Request | "end")[] = [];
  #wake: () => void = () => {};
  answers!: AsyncIterator<{
    subscribeTopicEventsResponseType?: {
      case?: string;
      value?: { id?: string; path?: string; topic?: string };
    };
  }>;

  constructor(tested: TestedPubSub) {
    this.tested = tested;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<unknown> {
    for (;;) {
      const next = this.#requests.shift();
      if (next === "end") return;
      if (next !== undefined) yield create(RequestSchema, { subscribeTopicEventsRequestType: next });
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  send(request: Request | "end"): void {
    this.#requests.push(request);
    this.#wake();
  }

  processed(id: string, status?: appcallback.TopicEventResponse_TopicEventResponseStatus): void {
    this.send({
      case: "eventProcessed",
      value: { id, ...(status === undefined ? {} : { status: { status } }) },
    });
  }

  /** The next answer; `error` is the text of the status that ended the stream. */
  async next(): Promise<{
    case?: string | undefined;
    value?: { id?: string; path?: string; topic?: string } | undefined;
    error?: string;
    code?: number;
  }> {
    try {
      const { value } = await this.answers.next();
      const said = value?.subscribeTopicEventsResponseType;
      return { case: said?.case, value: said?.value };
    } catch (error) {
      const { message, grpcCode } = toApiError(error);
      return { error: message, code: grpcCode };
    }
  }
}

/** Another stream of the same block; `tested.stream` would make new streams. */
async function openers(): Promise<{ tested: TestedPubSub; open(): Client }> {
  const tested = await testPubSubBlock();
  const mounted = (await tested.block.grpc()).find(
    ({ method }) => method === Dapr.method.subscribeTopicEventsAlpha1,
  )!;
  return {
    tested,
    open() {
      const client = new Client(tested);
      const call = { metadata: new Map(), signal: client.abort.signal, setHeader() {}, setTrailer() {} };
      client.answers = mounted.stream!(client, call)[Symbol.asyncIterator]() as Client["answers"];
      return client;
    },
  };
}

async function open(request: Request | "end", options?: PubSubBlockOptions): Promise<Client> {
  const client = new Client(await testPubSubBlock(options));
  client.send(request);
  const stream = await client.tested.stream(
    Dapr.method.subscribeTopicEventsAlpha1,
    client,
    client.abort.signal,
  );
  client.answers = stream as Client["answers"];
  return client;
}

const initial = (value: object = {}): Request => ({
  case: "initialRequest",
  value: { pubsubName: "pubsub", topic: "orders", ...value },
});

async function opened(value: object = {}): Promise<Client> {
  const client = await open(initial(value));
  expect(await client.next()).toMatchObject({ case: "initialResponse" });
  return client;
}

describe("a streaming subscription", () => {
  it.each([
    ["end", "initial request is required", 2],
    [{ case: "eventProcessed", value: { id: "1" } }, "initial request is required", 2],
    [initial({ pubsubName: "" }), "pubsubName is required", 2],
    [initial({ topic: "" }), "topic is required", 2],
    [initial({ pubsubName: "nope" }), "pubsub nope is not found", 3],
    [
      initial({ topic: "secret" }),
      "failed to create subscription for pubsub: subscription to topic 'secret' on pubsub 'pubsub' is not allowed",
      2,
    ],
  ])("that begins with %j ends", async (request, error, code) => {
    const client = await open(request as Request, { properties: { protectedTopics: "secret" } });
    expect(await client.next()).toEqual({ error, code });
  });

  it("tells what the broker refused", async () => {
    const client = await open(initial());
    client.tested.broker.failure = new Error("no broker");
    expect(await client.next()).toEqual({
      error: "failed to create subscription for pubsub: no broker",
      code: 2,
    });
  });

  it("sends events and acknowledges them by their verdicts, in any order", async () => {
    const client = await opened();
    const { broker, counted } = client.tested;
    const first = broker.deliver("orders", { data: Buffer.from('{"id":"1"}') });
    const second = broker.deliver("orders", { data: Buffer.from('{"id":"2"}') });
    expect(await client.next()).toMatchObject({
      case: "eventMessage",
      value: { id: "1", path: "/", topic: "orders" },
    });
    expect(await client.next()).toMatchObject({ value: { id: "2" } });
    client.processed("unknown");
    client.processed("2", Status.RETRY);
    client.processed("1");
    await first;
    await expect(second).rejects.toThrow("RETRY");
    expect(counted.map((line) => line.split(" ").slice(3).join(" "))).toEqual([
      "retry retry orders",
      "success success orders",
    ]);
  });

  it("answers events of one id one by one", async () => {
    const client = await opened();
    const data = Buffer.from('{"id":"1"}');
    const first = client.tested.broker.deliver("orders", { data });
    const second = client.tested.broker.deliver("orders", { data });
    client.processed("1", Status.SUCCESS);
    await first;
    client.processed("1", Status.RETRY);
    await expect(second).rejects.toThrow("RETRY");
  });

  it("dead-letters what is dropped, not what nobody answered", async () => {
    const client = await opened({ deadLetterTopic: "dead" });
    const { broker } = client.tested;
    const dropped = broker.deliver("orders", { data: Buffer.from('{"id":"1"}') });
    client.processed("1", Status.DROP);
    await dropped;
    expect(broker.published.map((it) => it.topic)).toEqual(["dead"]);
    const unanswered = broker.deliver("orders", { data: Buffer.from('{"id":"2"}') });
    client.send("end");
    await expect(unanswered).rejects.toThrow("closed before it answered");
    expect(broker.published).toHaveLength(1);
  });

  it("is listed while it is open", async () => {
    const client = await opened({ metadata: { rawPayload: "true" }, deadLetterTopic: "dead" });
    const listed = (): unknown => client.tested.block.metadata!()["subscriptions"];
    const item = {
      pubsubname: "pubsub",
      topic: "orders",
      metadata: { rawPayload: "true" },
      rules: [{ path: "/" }],
    };
    expect(listed()).toEqual([{ ...item, deadLetterTopic: "dead", type: "STREAMING" }]);
    client.send("end");
    expect(await client.next()).toEqual({ error: "EOF", code: 2 });
    expect(listed()).toEqual([]);
    expect(client.tested.broker.stops).toHaveLength(1);
  });

  it("ends at a second initial request", async () => {
    const client = await opened();
    client.send(initial());
    expect(await client.next()).toEqual({ error: "duplicate initial request received", code: 2 });
  });

  it("ends when its client goes away", async () => {
    const client = await opened();
    const pending = client.tested.broker.deliver("orders", { data: Buffer.from('{"id":"1"}') });
    expect(await client.next()).toMatchObject({ case: "eventMessage" });
    const next = client.next();
    client.abort.abort(new Error("gone"));
    expect(await next).toMatchObject({ error: "gone" });
    await expect(pending).rejects.toThrow();
    await eventually(() => expect(client.tested.broker.stops).toHaveLength(1));
  });

  it("ends with the sidecar, which first waits for verdicts", async () => {
    const client = await opened();
    const next = client.next();
    await client.tested.block.stop!(5000);
    expect(await next).toEqual({ error: "stream closed", code: 2 });
    expect(client.tested.broker.stops[0]).toBe(5000);
  });

  it("is refused while the sidecar stops, also when it had begun before", async () => {
    const { tested, open } = await openers();
    const begun = open();
    const answer = begun.next();
    await tested.block.stop!(5000);
    const refused = { error: "the sidecar stops", code: 14 };
    begun.send(initial());
    expect(await answer).toEqual(refused);
    // Whatever it says or leaves unsaid.
    expect(await open().next()).toEqual(refused);
    expect(tested.broker.subscribed).toEqual([]);
  });

  it("that is being opened while the sidecar stops is taken back", async () => {
    const { tested, open } = await openers();
    const subscribe = tested.broker.subscribe;
    const asked = Promise.withResolvers<void>();
    const granted = Promise.withResolvers<void>();
    tested.broker.subscribe = async (...request) => {
      asked.resolve();
      await granted.promise;
      return subscribe(...request);
    };
    const client = open();
    client.send(initial());
    const answer = client.next();
    await asked.promise;
    await tested.block.stop!(5000);
    granted.resolve();
    expect(await answer).toEqual({ error: "the sidecar stops", code: 14 });
    expect(tested.broker.stops).toHaveLength(1);
  });

  it("does not send what was taken back while it waited in line", async () => {
    const client = await opened();
    const { broker } = client.tested;
    const taken = new AbortController();
    const message = (id: string): { data: Buffer } => ({ data: Buffer.from(JSON.stringify({ id })) });
    const first = broker.deliver("orders", message("1"), taken.signal);
    const second = broker.deliver("orders", message("2"));
    taken.abort(new Error("lease lost"));
    await expect(first).rejects.toThrow("stopped before an answer came");
    await expect(broker.deliver("orders", message("3"), taken.signal)).rejects.toThrow(
      "stopped before an answer came",
    );
    expect(await client.next()).toMatchObject({ value: { id: "2" } });
    client.processed("2");
    await second;
    const next = client.next();
    client.send("end");
    expect(await next).toEqual({ error: "EOF", code: 2 });
  });
});
