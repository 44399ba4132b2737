// Events and bindings of a real plug-in through a real sidecar: publish and subscribe with failures, output and input
// bindings with the app's answers, and a restart under open streams.
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type App,
  type RunningProcess,
  type Sidecar,
  type TempDir,
  eventually,
  startApp,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { component } from "../secrets/resources.ts";
import { startPlugin } from "./plugin.ts";

const stack = new AsyncDisposableStack();
let folder: TempDir;
let plugin: RunningProcess;
let app: App;
let sidecar: Sidecar;
let failures = 1;

beforeAll(async () => {
  folder = stack.use(tempDir("plugins"));
  plugin = await startPlugin(folder.join("gadget.sock"));
  stack.defer(() => plugin[Symbol.asyncDispose]());
  app = stack.use(
    await startApp({
      subscriptions: [{ pubsubname: "bus", topic: "orders", route: "/orders" }],
      routes: {
        "POST /orders": () => ({ status: failures-- > 0 ? 500 : 200 }),
        "OPTIONS /door": () => ({ status: 200 }),
        "POST /door": () => ({ body: { answered: true } }),
      },
    }),
  );
  sidecar = stack.use(
    await startSidecar({
      appId: "shop",
      appPort: app.port,
      nats: stack.use(await startNats()),
      env: { DAPR_COMPONENTS_SOCKETS_FOLDER: folder.path },
      resources: {
        "bus.yaml": component("bus", "pubsub.gadget"),
        "batch.yaml": component("batch", "pubsub.gadget", { bulk: "yes" }),
        "door.yaml": component("door", "bindings.gadget"),
      },
    }),
  );
  await sidecar.subscribed("orders");
}, 400_000);
afterAll(() => stack.disposeAsync());

const publish = (data: unknown) => sidecar.post("/v1.0/publish/bus/orders", data);
const orders = () => app.requestsTo("/orders").map(({ body }) => JSON.parse(body.toString()).data as unknown);

test("delivers an event again until the app has handled it", async () => {
  expect((await publish({ n: 1 })).status).toBe(204);
  await eventually(() => expect(orders()).toEqual([{ n: 1 }, { n: 1 }]));
  expect(plugin.logs()).toContain("not handled: ");
  expect((await publish({ n: 2 })).status).toBe(204);
  await eventually(() => expect(orders()).toEqual([{ n: 1 }, { n: 1 }, { n: 2 }]));
});

test("an output binding answers, and only to the operations it lists", async () => {
  const invoke = (operation: string) =>
    sidecar.post("/v1.0/bindings/door", { operation, data: { a: 1 }, metadata: { k: "v" } });
  const echo = await invoke("echo");
  expect(echo.text).toBe(`{"a":1}`);
  expect(echo.headers["metadata.seen"]).toBe("v");
  expect((await invoke("nope")).status).toBe(500);
});

test("an input binding hands events to the app and gets its answer", async () => {
  expect((await sidecar.post("/v1.0/bindings/door", { operation: "create", data: "hi" })).status).toBe(200);
  await eventually(() => expect(plugin.logs()).toContain(`answer true failed=false: {"answered":true}`));
  const event = app.requestsTo("/door").find(({ method }) => method === "POST");
  expect(event!.body.toString()).toBe(`"hi"`);
  expect(event!.headers["from"]).toBe("plugin");
});

test("many events go in one call where the plug-in has one, and each gets its own answer", async () => {
  const entry = (entryId: string, metadata = {}) => ({
    entryId,
    event: { n: 1 },
    contentType: "application/json",
    metadata,
  });
  const send = (entries: unknown[], parameters = "") =>
    sidecar.post(`/v1.0/publish/bulk/batch/many${parameters}`, entries);
  expect((await send([entry("a"), entry("b")], "?metadata.all=yes")).status).toBe(204);
  await eventually(() => expect(plugin.logs()).toContain("entry many a application/cloudevents+json 2 yes"));
  const part = await send([entry("c"), entry("d", { refuse: "full" }), entry("e", { refuse: "" })]);
  expect([part.status, part.json()]).toEqual([
    500,
    {
      errorCode: "ERR_PUBSUB_PUBLISH_MESSAGE",
      failedEntries: [
        { entryId: "d", error: "full" },
        { entryId: "e", error: "the plug-in did not take it" },
      ],
    },
  ]);
  const none = await send([entry("f"), entry("g", { fail: "away" })]);
  expect(none.json<{ failedEntries: unknown }>().failedEntries).toEqual([
    { entryId: "f", error: "rpc error: code = Unavailable desc = away" },
    { entryId: "g", error: "rpc error: code = Unavailable desc = away" },
  ]);
  const raw = [{ entryId: "r", event: "text", contentType: "text/plain", metadata: {} }];
  expect((await send(raw, "?metadata.rawPayload=true")).status).toBe(204);
  await eventually(() => expect(plugin.logs()).toContain("entry many r text/plain 1 "));
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: { name: string }[] }>();
  expect(components.find(({ name }) => name === "batch")).toMatchObject({ capabilities: ["BULK_PUBSUB"] });
});

test("streams are opened again when the plug-in was killed and started again", async () => {
  await plugin.kill();
  plugin = await startPlugin(folder.join("gadget.sock"));
  await eventually(() => expect(plugin.logs()).toContain("subscribed to orders"), { timeoutMs: 30_000 });
  expect((await publish({ n: 3 })).status).toBe(204);
  await eventually(() => expect(orders()).toContainEqual({ n: 3 }));
});
