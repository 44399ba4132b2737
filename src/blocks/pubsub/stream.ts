/**
 * Subscriptions that an app opens over one gRPC stream: events go out on it, verdicts come back on it.
 */
import { asError } from "../../lib/thrown.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type {
  SubscribeTopicEventsRequestAlpha1,
  SubscribeTopicEventsRequestInitialAlpha1,
  SubscribeTopicEventsResponseAlpha1Schema,
} from "../../../proto/gen/dapr/proto/runtime/v1/pubsub_pb.ts";
import { streaming } from "../../api/grpc.ts";
import type { GrpcCall, GrpcMethod } from "../../api/grpc.ts";
import { retry, unserved } from "./answer.ts";
import type { Answer, Deliver } from "./answer.ts";
import type { Broker, Brokers } from "./broker.ts";
import { pubsubNotFound, streamError, streamRefused, streamsEnded } from "./errors.ts";
import { readStatus, topicEventRequest } from "./grpc-app.ts";
import { RequestRefused, type Subscription } from "./port.ts";
import type { OpenSubscription } from "./subscriber.ts";
import type { SubscriptionSpec, TopicSubscription } from "./subscription.ts";

type Outgoing = MessageInitShape<typeof SubscribeTopicEventsResponseAlpha1Schema>;

export type Streams = {
  readonly method: GrpcMethod;
  /** Subscriptions of the streams that are open now. */
  list(): SubscriptionSpec[];
  /**
   * Takes no further event, waits for verdicts up to `graceMs`, then ends every stream. Those that come later are
   * refused: a client that subscribes again at once would hold the sidecar.
   */
  stop(graceMs: number): Promise<void>;
  /** Another component has that name now, or none: ends the streams of the one before; clients open new ones. */
  brokerChanged(pubsub: string, graceMs: number): Promise<void>;
};

export type StreamParts = { readonly brokers: Brokers; readonly open: OpenSubscription };

const streamPath = "/";
const stoppedFirst = unserved("the subscription was stopped before an answer came");
/** How long a stream that its client left may take to end at the broker; nobody answers its events any more. */
const leftGraceMs = 1000;

export function createStreams(parts: StreamParts): Streams {
  const live = new Set<EventStream>();
  let stopping = false;

  async function* serve(
    requests: AsyncIterable<SubscribeTopicEventsRequestAlpha1>,
    call: GrpcCall,
  ): AsyncIterable<Outgoing> {
    const reader = requests[Symbol.asyncIterator]();
    if (stopping) throw streamsEnded();
    const spec = readInitial((await reader.next()).value as SubscribeTopicEventsRequestAlpha1 | undefined);
    if (stopping) throw streamsEnded();
    const stream = new EventStream(spec);
    const onAbort = (): void => stream.end(asError(call.signal.reason));
    call.signal.addEventListener("abort", onAbort, { once: true });
    live.add(stream);
    try {
      await attach(parts, stream);
      // The stop had no subscription to wait for.
      if (stopping) throw streamsEnded();
      void readVerdicts(reader, stream);
      yield { subscribeTopicEventsResponseType: { case: "initialResponse", value: {} } };
      yield* stream.outgoing();
    } finally {
      call.signal.removeEventListener("abort", onAbort);
      live.delete(stream);
      stream.end(streamError("stream closed"));
      await stream.subscription?.stop(leftGraceMs);
    }
  }

  return {
    method: streaming(Dapr.method.subscribeTopicEventsAlpha1, serve),
    list: () => [...live].map((stream) => stream.spec),
    async stop(graceMs) {
      stopping = true;
      await close([...live], graceMs);
    },
    async brokerChanged(pubsub, graceMs) {
      await close(
        [...live].filter((stream) => stream.spec.pubsub === pubsub),
        graceMs,
      );
    },
  };
}

/** Those that are just being opened find out by themselves. */
async function close(streams: readonly EventStream[], graceMs: number): Promise<void> {
  await Promise.all(
    streams.map(async (stream) => {
      if (stream.subscription === undefined) return;
      await stream.subscription.stop(graceMs);
      stream.end(streamError("stream closed"));
    }),
  );
}

/** Subscribes at the component that has the name when the subscription is there. */
async function attach(parts: StreamParts, stream: EventStream): Promise<void> {
  for (;;) {
    const broker = parts.brokers.get(stream.spec.pubsub);
    const subscription = await openStream(parts, broker, stream.spec, stream.deliver);
    if (parts.brokers.get(stream.spec.pubsub) === broker) return void (stream.subscription = subscription);
    await subscription.stop(leftGraceMs);
  }
}

function readInitial(request: SubscribeTopicEventsRequestAlpha1 | undefined): TopicSubscription {
  const first = request?.subscribeTopicEventsRequestType;
  if (first?.case !== "initialRequest") throw streamError("initial request is required");
  const initial: SubscribeTopicEventsRequestInitialAlpha1 = first.value;
  if (initial.pubsubName === "") throw streamError("pubsubName is required");
  if (initial.topic === "") throw streamError("topic is required");
  const rules = [{ match: "", path: streamPath }];
  return {
    source: "STREAMING",
    pubsub: initial.pubsubName,
    topic: initial.topic,
    metadata: { ...initial.metadata },
    rules,
    route: () => streamPath,
    deadLetterTopic: initial.deadLetterTopic ?? "",
    bulk: undefined,
  };
}

async function openStream(
  parts: StreamParts,
  broker: Broker | undefined,
  spec: TopicSubscription,
  deliver: Deliver,
): Promise<Subscription> {
  const { pubsub, topic } = spec;
  if (broker === undefined) throw pubsubNotFound(pubsub, {});
  const failed = `failed to create subscription for ${pubsub}: `;
  if (!broker.scopes.maySubscribe(topic)) {
    throw streamError(`${failed}subscription to topic '${topic}' on pubsub '${pubsub}' is not allowed`);
  }
  try {
    return await parts.open(broker, spec, { one: deliver });
  } catch (error) {
    const ended = error instanceof RequestRefused ? streamRefused : streamError;
    throw ended(failed + asError(error).message);
  }
}

/** Reads what the client says until it ends or breaks off; either way the stream is over then. */
async function readVerdicts(
  reader: AsyncIterator<SubscribeTopicEventsRequestAlpha1>,
  stream: EventStream,
): Promise<void> {
  try {
    for (;;) {
      const { done, value } = await reader.next();
      if (done === true) return stream.end(streamError("EOF"));
      const said = value.subscribeTopicEventsRequestType;
      if (said.case === "initialRequest")
        return stream.end(streamError("duplicate initial request received"));
      if (said.case === "eventProcessed") stream.settle(said.value.id, readStatus(said.value.status?.status));
    }
  } catch (error) {
    stream.end(asError(error));
  }
}

/** Events on their way out and those that wait for a verdict; as many as the component hands over at once. */
class EventStream {
  readonly spec: TopicSubscription;
  subscription: Subscription | undefined;
  readonly #queue: Outgoing[] = [];
  readonly #waiting = new Map<string, ((answer: Answer) => void)[]>();
  #ended: Error | undefined;
  #wake: () => void = () => {};

  constructor(spec: TopicSubscription) {
    this.spec = spec;
  }

  readonly deliver: Deliver = (event, path, signal) => {
    if (this.#ended !== undefined) return Promise.resolve(unserved("the stream is closed"));
    if (signal.aborted) return Promise.resolve(stoppedFirst);
    let message: ReturnType<typeof topicEventRequest>;
    try {
      message = topicEventRequest(event, path);
    } catch (error) {
      return Promise.resolve(retry(asError(error)));
    }
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const waiters = this.#waiting.get(message.id);
    if (waiters === undefined) this.#waiting.set(message.id, [resolve]);
    else waiters.push(resolve);
    const outgoing: Outgoing = {
      subscribeTopicEventsResponseType: { case: "eventMessage", value: message },
    };
    const onAbort = (): void => this.#forget(message.id, resolve, outgoing);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#queue.push(outgoing);
    this.#wake();
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  };

  /** The verdict on the oldest event of that id; unknown ids are ignored. */
  settle(id: string, answer: Answer): void {
    const waiters = this.#waiting.get(id);
    waiters?.shift()?.(answer);
    if (waiters?.length === 0) this.#waiting.delete(id);
  }

  /** Ends `outgoing` with this error; events without a verdict go back to the broker. Later calls do nothing. */
  end(error: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    for (const waiters of this.#waiting.values()) {
      for (const resolve of waiters) resolve(unserved("the stream was closed before it answered"));
    }
    this.#waiting.clear();
    this.#wake();
  }

  /** What to send, in order; throws the error that ended the stream. */
  async *outgoing(): AsyncGenerator<Outgoing, never> {
    for (;;) {
      if (this.#ended !== undefined) throw this.#ended;
      const next = this.#queue.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The broker will deliver the event again: what has not been sent must not be sent any more. */
  #forget(id: string, resolve: (answer: Answer) => void, outgoing: Outgoing): void {
    const place = this.#queue.indexOf(outgoing);
    if (place >= 0) this.#queue.splice(place, 1);
    const waiters = this.#waiting.get(id)?.filter((other) => other !== resolve) ?? [];
    if (waiters.length === 0) this.#waiting.delete(id);
    else this.#waiting.set(id, waiters);
    resolve(stoppedFirst);
  }
}
