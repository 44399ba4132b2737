/** Methods of the configuration API over gRPC: decode, call configuration.ts, encode. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  GetConfigurationRequest,
  SubscribeConfigurationRequest,
  SubscribeConfigurationResponseSchema,
  UnsubscribeConfigurationRequest,
} from "../../../proto/gen/dapr/proto/runtime/v1/configuration_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcCall, type GrpcMethod, streaming, unary } from "../../api/grpc.ts";
import type { Configurations } from "./configuration.ts";
import { unknownIdText } from "./errors.ts";
import type { ConfigurationItem } from "./port.ts";

type Outgoing = MessageInitShape<typeof SubscribeConfigurationResponseSchema>;

/** All gRPC methods of the block. The twins with the older name do the same. */
export function configurationGrpcMethods(configurations: Configurations): GrpcMethod[] {
  const get = async ({ storeName, keys, metadata }: GetConfigurationRequest, call: GrpcCall) => {
    const items = await configurations.get(storeName, keys, metadata, call.signal);
    return { items: Object.fromEntries([...items].map(([key, item]) => [key, wireItem(item)])) };
  };
  const subscribe = (requests: AsyncIterable<SubscribeConfigurationRequest>, call: GrpcCall) =>
    watch(configurations, requests, call);
  const unsubscribe = async ({ id }: UnsubscribeConfigurationRequest) => {
    if (await configurations.unsubscribe(id)) return { ok: true };
    return { ok: false, message: unknownIdText(id, "grpc") };
  };
  const { method } = Dapr;
  return [
    unary(method.getConfiguration, get),
    unary(method.getConfigurationAlpha1, get),
    streaming(method.subscribeConfiguration, subscribe),
    streaming(method.subscribeConfigurationAlpha1, subscribe),
    unary(method.unsubscribeConfiguration, unsubscribe),
    unary(method.unsubscribeConfigurationAlpha1, unsubscribe),
  ];
}

/** The id first, then each change, until an unsubscribe or the client ends it. */
async function* watch(
  configurations: Configurations,
  requests: AsyncIterable<SubscribeConfigurationRequest>,
  { signal }: GrpcCall,
): AsyncGenerator<Outgoing> {
  for await (const { storeName, keys, metadata } of requests) {
    const { id, changes } = await configurations.subscribe(storeName, keys, metadata, signal);
    const onAbort = (): void => changes.end();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      yield { id };
      for await (const { key, item } of changes) yield { id, items: { [key]: wireItem(item) } };
      return;
    } finally {
      signal.removeEventListener("abort", onAbort);
      await configurations.unsubscribe(id).catch(() => false);
    }
  }
}

function wireItem({ value, version, metadata }: ConfigurationItem) {
  return { value, version, metadata: { ...metadata } };
}
