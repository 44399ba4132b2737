/**
 * A user's app on the unmodified JavaScript SDK: answers invocations, asks another app, subscribes in every way the
 * SDK offers. It is run as a process of its own beside a sidecar.
 */
import { CommunicationProtocolEnum, DaprPubSubStatusEnum, DaprServer, HttpMethod } from "@dapr/dapr";

const env = (name: string): string => process.env[name] ?? "";
const grpc = env("SDK_PROTOCOL") === "grpc";
const communicationProtocol = grpc ? CommunicationProtocolEnum.GRPC : CommunicationProtocolEnum.HTTP;
const server = new DaprServer({
  serverHost: "127.0.0.1",
  serverPort: env("APP_PORT"),
  communicationProtocol,
  clientOptions: {
    daprHost: "127.0.0.1",
    daprPort: env(grpc ? "DAPR_GRPC_PORT" : "DAPR_HTTP_PORT"),
    communicationProtocol,
  },
});

type Seen = { readonly handler: string; readonly data: unknown };
const seen: Seen[] = [];

await server.invoker.listen(
  "price",
  async ({ body }) => {
    const order = JSON.parse(body ?? "{}") as { quantity: number };
    return { total: order.quantity * 5, by: env("APP_ID") };
  },
  { method: HttpMethod.POST },
);
await server.invoker.listen("seen", async () => ({ seen }), { method: HttpMethod.GET });
await server.invoker.listen(
  "ask",
  async ({ body }) => {
    const { app, order } = JSON.parse(body ?? "{}") as { app: string; order: object };
    return { answer: await server.client.invoker.invoke(app, "price", HttpMethod.POST, order) };
  },
  { method: HttpMethod.POST },
);

await server.pubsub.subscribe("bus", "orders.created", async (data: unknown) => {
  seen.push({ handler: "default route", data });
});
await server.pubsub.subscribe(
  "bus",
  "parcels",
  async (data: unknown) => {
    seen.push({ handler: "named route", data });
  },
  "/parcels-here",
);
await server.pubsub.subscribeWithOptions("bus", "refunds", {
  route: { default: "/refunds-here" },
  callback: async (data: unknown) => {
    seen.push({ handler: "routes.default", data });
  },
});
await server.pubsub.subscribe("bus", "flaky", async (data: unknown) => {
  const before = seen.some((it) => it.handler === "flaky");
  seen.push({ handler: "flaky", data });
  return before ? DaprPubSubStatusEnum.SUCCESS : DaprPubSubStatusEnum.RETRY;
});
await server.pubsub.subscribe("bus", "unwanted", async (data: unknown) => {
  seen.push({ handler: "unwanted", data });
  return DaprPubSubStatusEnum.DROP;
});
await server.pubsub.subscribeBulk(
  "bus",
  "crates",
  async (data: unknown) => {
    seen.push({ handler: "bulk", data });
  },
  { maxMessagesCount: 10, maxAwaitDurationMs: 100 },
);

await server.start();
process.stdout.write("the app and its SDK are up\n");
