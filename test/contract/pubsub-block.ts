/** The pub/sub block on given brokers and a given app, called without sockets. */
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import type { DescMethod, DescMethodUnary } from "@bufbuild/protobuf";
import { type ApiError, httpErrorBody, toApiError } from "../../src/api/errors.ts";
import type { HttpCall } from "../../src/api/http.ts";
import type { AppChannel, AppHttpRequest, AppHttpResponse } from "../../src/app/channel.ts";
import type { Block, BlockHost } from "../../src/blocks/block.ts";
import { pubsubBlock } from "../../src/blocks/pubsub/index.ts";
import type {
  BrokerMessage,
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
} from "../../src/blocks/pubsub/port.ts";
import type { OpenComponent } from "../../src/components/open.ts";
import { noPolicies, type Policies } from "../../src/resiliency/policies.ts";
import type { SubscriptionResource } from "../../src/config/resources.ts";
import { Router } from "../../src/ingress/router.ts";
import { readBinaryTrace } from "../../src/telemetry/tracing/trace-context.ts";
import { noMetrics } from "../../src/telemetry/metrics.ts";
import { passingTracer } from "../../src/telemetry/tracing/tracer.ts";
import { type ManualClock, manualClock } from "./manual-clock.ts";
import { silentLog } from "./silent-log.ts";

/** A broker that keeps what it is given and hands over what the test tells it to. */
export type FakeBroker = PubSub & {
  readonly published: PublishMessage[];
  readonly subscribed: SubscribeRequest[];
  /** Next publishes and subscribes fail with this. */
  failure: Error | undefined;
  /** Hands a message to the subscription of a topic; resolves or rejects as its handler does. */
  deliver(topic: string, message: Partial<BrokerMessage>, signal?: AbortSignal): Promise<void>;
  readonly stops: number[];
};

export function fakeBroker(): FakeBroker {
  const handlers = new Map<string, MessageHandler>();
  const broker: FakeBroker = {
    published: [],
    subscribed: [],
    stops: [],
    failure: undefined,
    async publish(message) {
      if (broker.failure !== undefined) throw broker.failure;
      broker.published.push(message);
    },
    async subscribe(request, handler) {
      if (broker.failure !== undefined) throw broker.failure;
      broker.subscribed.push(request);
      handlers.set(request.topic, handler);
      return { stop: async (graceMs) => void broker.stops.push(graceMs) };
    },
    async deliver(topic, message, signal = never) {
      const handler = handlers.get(topic);
      if (handler === undefined) throw new Error(`nobody subscribed to ${topic}`);
      const empty = { topic, data: Buffer.from("{}"), metadata: {}, contentType: undefined };
      await handler({ ...empty, ...message }, signal);
    },
    close: async () => {},
  };
  return broker;
}

export type PubSubBlockOptions = {
  /** Metadata of the component `pubsub`, as written and as resolved. */
  readonly properties?: Readonly<Record<string, string>>;
  readonly capabilities?: readonly string[];
  readonly subscriptions?: readonly Partial<SubscriptionResource>[];
  /** The HTTP app; none when not given. */
  readonly app?: (request: AppHttpRequest) => Partial<AppHttpResponse> | Error;
  /** Any other app. */
  readonly channel?: Partial<AppChannel>;
  readonly policies?: Policies;
};

export type TestedPubSub = {
  readonly block: Block;
  readonly broker: FakeBroker;
  readonly clock: ManualClock;
  /** Counted events as `family label label ...`. */
  readonly counted: string[];
  readonly logged: string[];
  /** What the app was asked. */
  readonly asked: AppHttpRequest[];
  http(
    verb: string,
    path: string,
    init?: { body?: string | Buffer; headers?: Record<string, string> },
  ): Promise<{ status: number; headers: Readonly<Record<string, string | readonly string[]>>; text: string }>;
  /** Rejects with the ApiError that ingress would put into the status. */
  grpc<M extends DescMethodUnary>(
    method: M,
    request: MessageInitShape<M["input"]>,
    metadata?: Readonly<Record<string, string>>,
  ): Promise<MessageInitShape<M["output"]>>;
  stream(
    method: DescMethod,
    requests: AsyncIterable<unknown>,
    signal?: AbortSignal,
  ): Promise<AsyncIterator<unknown>>;
};

const never = new AbortController().signal;
/** As without any setting of tracing: contexts go through. */
const tracer = passingTracer();

/** App `app` in namespace `prod`, one component `pubsub`. */
export async function testPubSubBlock(options: PubSubBlockOptions = {}): Promise<TestedPubSub> {
  const clock = manualClock();
  const broker = fakeBroker();
  const counted: string[] = [];
  const logged: string[] = [];
  const asked: AppHttpRequest[] = [];
  const open = component(broker, options);
  const host = {
    clock,
    random: () => 0.5,
    policies: options.policies ?? noPolicies,
    app: options.channel ?? appChannel(options.app, asked),
    options: { appId: "app", namespace: "prod", app: { skipSubscribe: false } },
    subscriptions: (options.subscriptions ?? []).map(resource),
    components: {
      get: (category: string, name: string) =>
        category === "pubsub" && name === "pubsub" ? open : undefined,
      all: () => [open],
    },
    log: recordingLog(logged),
    tracing: { tracer },
    metrics: {
      ...noMetrics,
      count:
        (family: string) =>
        (...labels: string[]) =>
          void counted.push([family, ...labels].join(" ")),
      latency: () => () => {},
    },
  } as unknown as BlockHost;
  const block = await pubsubBlock(host);
  const router = new Router(block.http);
  return {
    block,
    broker,
    clock,
    counted,
    logged,
    asked,
    http: (verb, path, init = {}) => callHttp(router, verb, path, init),
    async grpc(method, request, metadata = {}) {
      const mounted = (await block.grpc()).find((candidate) => candidate.method === method);
      const message = create(method.input, request as MessageInitShape<typeof method.input>);
      try {
        return (await mounted!.unary!(message, grpcCall(metadata, never))) as MessageInitShape<
          (typeof method)["output"]
        >;
      } catch (thrown) {
        throw toApiError(thrown);
      }
    },
    async stream(method, requests, signal = never) {
      const mounted = (await block.grpc()).find((candidate) => candidate.method === method);
      return mounted!.stream!(requests, grpcCall({}, signal))[Symbol.asyncIterator]();
    },
  };
}

function grpcCall(
  metadata: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Parameters<NonNullable<Awaited<ReturnType<Block["grpc"]>>[number]["unary"]>>[1] {
  const lists = new Map(Object.entries(metadata).map(([name, value]) => [name, [value]]));
  const binary = metadata["grpc-trace-bin"];
  const parent = binary === undefined ? metadata["traceparent"] : readBinaryTrace(binary).traceparent;
  const span = tracer.start("", "client", parent, metadata["tracestate"]);
  return { metadata: lists, signal, span, setHeader: () => {}, setTrailer: () => {} };
}

function recordingLog(lines: string[]): BlockHost["log"] {
  const record = (text: string): void => void lines.push(text);
  const log = { ...silentLog, info: record, warn: record, error: record, scope: () => log };
  return log;
}

function component(port: PubSub, options: PubSubBlockOptions): OpenComponent<PubSub> {
  const properties = options.properties ?? {};
  const metadata = Object.entries(properties).map(([name, value]) => ({ name, value }));
  const resource = { name: "pubsub", metadata } as unknown as OpenComponent["resource"];
  const file = undefined as unknown as OpenComponent<PubSub>["file"];
  return { resource, port, properties, file, capabilities: options.capabilities ?? [] };
}

function resource(given: Partial<SubscriptionResource>): SubscriptionResource {
  return {
    kind: "Subscription",
    name: "sub",
    namespace: undefined,
    pubsubname: "pubsub",
    topic: "orders",
    rules: [{ match: "", path: "/orders" }],
    deadLetterTopic: "",
    metadata: {},
    bulkSubscribe: { enabled: false, maxMessagesCount: 0, maxAwaitDurationMs: 0 },
    scopes: [],
    origin: { file: "subs.yaml", line: 7, column: 1 },
    ...given,
  };
}

function appChannel(app: PubSubBlockOptions["app"], asked: AppHttpRequest[]): AppChannel {
  const refuse = (): Promise<never> => Promise.reject(new Error("not this app"));
  return {
    protocol: app === undefined ? "none" : "http",
    listening: () => Promise.resolve(),
    invoke: refuse,
    grpc: refuse,
    proxy: refuse,
    async http(request) {
      asked.push(request);
      const answer = app!(request);
      if (answer instanceof Error) throw answer;
      return { status: 200, headers: [], body: Buffer.alloc(0), ...answer };
    },
    close: () => Promise.resolve(),
  };
}

async function callHttp(
  router: Router,
  verb: string,
  pathAndQuery: string,
  init: { body?: string | Buffer; headers?: Record<string, string> },
): ReturnType<TestedPubSub["http"]> {
  const [path = "", query = ""] = pathAndQuery.split("?");
  const match = router.find(verb, path);
  if (match === undefined) return { status: 404, headers: {}, text: "no route" };
  const metadata: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(query)) {
    if (name.startsWith("metadata.")) metadata[name.slice("metadata.".length)] ??= value;
  }
  const call = {
    verb,
    path,
    query,
    params: match.params,
    headers: init.headers ?? {},
    span: tracer.start(path, "client", init.headers?.["traceparent"], init.headers?.["tracestate"]),
    signal: never,
    body: async () => Buffer.from(init.body ?? ""),
    metadata: () => metadata,
  };
  try {
    const { status, headers = {}, body } = await match.route.handle(call as unknown as HttpCall);
    return { status, headers, text: body === undefined ? "" : Buffer.from(body as Uint8Array).toString() };
  } catch (thrown) {
    const error = toApiError(thrown);
    return { status: error.httpStatus, headers: {}, text: httpErrorBody(error) };
  }
}

/** The ApiError of a call that must fail. */
export async function failure(call: Promise<unknown>): Promise<ApiError> {
  const outcome = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (outcome === undefined) throw new Error("expected a failure");
  return toApiError(outcome);
}
