// deploy/nats/permissions.conf as it stands: with it the caller that an app sees is the NATS user, and what a user may
// not do is refused by NATS itself.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { headers as natsHeaders, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkout, eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar, SidecarOptions } from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let ordersApp: App;
let pricingApp: App;
let orders: Sidecar;

const passwords = { orders: "for orders", pricing: "for pricing", operator: "for the operator" };

const component = (name: string, type: string): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: ${name}\nspec:\n  type: ${type}\n  version: v1\n`;
const resources = {
  "state.yaml": component("statestore", "state.nats"),
  "pubsub.yaml": component("pubsub", "pubsub.nats"),
};

/** A sidecar that shows the password of a user. */
function sidecar(
  appId: string,
  user: keyof typeof passwords,
  more: Partial<SidecarOptions> = {},
): Promise<Sidecar> {
  const flags = [`--nats-user=${user}`, `--nats-password=${passwords[user]}`];
  return startSidecar({ appId, nats, flags, resources, ...more });
}

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const variables = Object.entries(passwords).map(
    ([user, password]) => `WEFT_PASSWORD_${user.toUpperCase()}: ${JSON.stringify(password)}`,
  );
  const permissions = await readFile(join(checkout, "deploy/nats/permissions.conf"), "utf8");
  nats = stack.use(await startNats({ config: `${variables.join("\n")}\n${permissions}` }));
  ordersApp = stack.use(
    await startApp({
      fallback: () => ({ body: "orders" }),
      subscriptions: [{ pubsubname: "pubsub", topic: "done", route: "/done" }],
      routes: { "POST /done": () => undefined },
    }),
  );
  pricingApp = stack.use(await startApp({ fallback: () => ({ body: "pricing" }) }));
  orders = stack.use(await sidecar("orders", "orders", { appPort: ordersApp.port }));
  stack.use(await sidecar("pricing", "pricing", { appPort: pricingApp.port }));
});

afterAll(() => stack.disposeAsync());

function connect(user: keyof typeof passwords): Promise<NatsConnection> {
  return nats.connect({ user, pass: passwords[user] });
}

test("a user may share a consumer among its topics", async () => {
  const topics = ["one", "two"];
  const subscriptions = topics.map((topic) => ({ pubsubname: "pubsub", topic, route: "/shared" }));
  await using app = await startApp({ subscriptions });
  const sharing = { "p.yaml": pubsubComponent("pubsub.nats", { sharedConsumer: "true" }) };
  const options = { appPort: app.port, resources: sharing };
  await using first = await sidecar("orders", "orders", options);
  await first.subscribed("two");
  for (const topic of topics) expect((await first.post(`/v1.0/publish/pubsub/${topic}`, 1)).status).toBe(204);
  await app.received("/shared", 2);
  expect(first.logs()).not.toMatch(/permissions/i);
});

test("sidecars with their own users do everything: calls, state, events, presence", async () => {
  const answer = await orders.post("/v1.0/invoke/pricing/method/price", { item: 1 });
  expect(answer).toMatchObject({ status: 200, text: "pricing" });
  expect(pricingApp.requestsTo("/price")[0]!.headers["dapr-caller-app-id"]).toBe("orders");
  const large = { method: "POST", body: "x".repeat(3_000_000) };
  expect(await orders.http("/v1.0/invoke/pricing/method/large", large)).toMatchObject({ status: 200 });
  expect(pricingApp.requestsTo("/large")[0]!.body).toHaveLength(3_000_000);
  expect(
    (
      await orders.post("/v1.0/state/statestore", [
        { key: "k", value: 1 },
        { key: "l", value: 2 },
      ])
    ).status,
  ).toBe(204);
  expect((await orders.get("/v1.0/state/statestore/k")).text).toBe("1");
  const many = await orders.post("/v1.0/state/statestore/bulk", { keys: ["k", "l"] });
  expect(many.json<unknown[]>()).toHaveLength(2);
  const operations = [
    { operation: "upsert", request: { key: "k", value: 3 } },
    { operation: "delete", request: { key: "l" } },
  ];
  expect((await orders.post("/v1.0/state/statestore/transaction", { operations })).status).toBe(204);
  await orders.subscribed("done");
  expect((await orders.post("/v1.0/publish/pubsub/done", { n: 1 })).status).toBe(204);
  await ordersApp.received("/done", 1);
  expect((await orders.get("/v1.0/invoke/nobody/method/x")).text).toContain("couldn't find service: nobody");
  expect((await orders.get("/v1.0/healthz")).status).toBe(204);
  expect(nats.logs()).not.toMatch(/Violation/);
});

test("wrong passwords and no password are refused, the sidecar says so and is not healthy", async () => {
  await expect(nats.connect()).rejects.toThrow(/Authorization Violation/i);
  await expect(nats.connect({ user: "orders", pass: "wrong" })).rejects.toThrow(/Authorization Violation/i);
  const flags = ["--nats-user=orders", "--nats-password=wrong"];
  await using refused = await startSidecar({ appId: "orders", nats, flags, wait: "none" });
  await refused.logged(/Authorization Violation/i, 30_000);
  await eventually(async () => (await refused.get("/v1.0/healthz")).status === 500);
});

test("a client cannot call under another name", async () => {
  const client = await connect("orders");
  const before = pricingApp.requests.length;
  for (const subject of [
    "weft.default.call.pricing.default.admin",
    "weft.default.rpc.pricing.other.orders",
  ]) {
    await expect(client.request(subject, "x", { timeout: 5_000 })).rejects.toThrow(
      /permissions violation|no responders|timeout/i,
    );
  }
  await expect(
    client.request("weft.default.call.pricing.default.admin", "x", { timeout: 10_000 }),
  ).rejects.toThrow(/permissions violation/i);
  expect(pricingApp.requests).toHaveLength(before);
});

test("a name written into the request never reaches the app", async () => {
  const client = await connect("orders");
  const headers = natsHeaders();
  for (const [name, value] of [
    ["dapr-caller-app-id", "admin"],
    ["Dapr-Caller-Namespace", "secret"],
    ["Weft-Path", "/forged"],
  ] as const)
    headers.set(name, value);
  const answer = await client.request("weft.default.call.pricing.default.orders", "x", {
    headers,
    timeout: 5_000,
  });
  expect(answer.string()).toBe("pricing");
  const sent = { "dapr-caller-app-id": "admin", "dapr-caller-namespace": "secret" };
  await orders.http("/v1.0/invoke/pricing/method/forged", { headers: sent });
  for (const request of await pricingApp.received("/forged", 2)) {
    expect(request.headers).toMatchObject({
      "dapr-caller-app-id": "orders",
      "dapr-caller-namespace": "default",
    });
    expect(request.rawHeaders).not.toContain("admin");
    expect(request.rawHeaders).not.toContain("secret");
  }
});

test("a sidecar with another app's name can neither call nor serve under it", async () => {
  await using thiefApp = await startApp({ fallback: () => ({ body: "stolen" }) });
  await using thief = await sidecar("pricing", "orders", { appPort: thiefApp.port, wait: "none" });
  await eventually(() => /Permissions Violation/i.test(`${thief.logs()}${nats.logs()}`), {
    timeoutMs: 30_000,
  });
  await thief.ready("outbound");
  const answer = await thief.get("/v1.0/invoke/orders/method/x");
  expect(answer.status).toBe(500);
  expect(ordersApp.requestsTo("/x")).toHaveLength(0);
  for (let i = 0; i < 30; i++)
    expect((await orders.get("/v1.0/invoke/pricing/method/mine")).text).toBe("pricing");
  expect(thiefApp.requestsTo("/mine")).toHaveLength(0);
});

test("a client cannot listen to the calls of an app, nor write another's state or presence", async () => {
  const client = await connect("orders");
  for (const subject of [
    "weft.default.rpc.pricing.*.*",
    "weft.>",
    "$KV.>",
    "weft.default.rpc.orders.*.*",
    "weft.default.inst.>",
    "weft.default.inst.pricing.>",
  ]) {
    const ended = new Promise<Error | undefined>((resolve) => {
      client.subscribe(subject, { callback: (error) => void (error !== null && resolve(error)) });
    });
    expect((await ended)?.message).toMatch(/permissions violation/i);
  }
  for (const subject of [
    "$KV.weft__state__default__statestore.pricing.k",
    "$KV.weft__presence.default.pricing.x",
    "$JS.API.STREAM.DELETE.KV_weft__presence",
  ]) {
    await expect(client.request(subject, "x", { timeout: 10_000 })).rejects.toThrow(/permissions violation/i);
  }
});
