// Bad input gets a clear error or simply works, and the sidecar lives on.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Nats, type Sidecar, startNats, startSidecar } from "../../kit/index.ts";
import { stateComponent } from "./resources.ts";

const path = "/v1.0/state/store";
let nats: Nats;
let sidecar: Sidecar;

beforeAll(async () => {
  nats = await startNats({ maxPayload: 100_000 });
  const resources = { "store.yaml": stateComponent("store", "state.nats", { maxValueSize: "150000" }) };
  sidecar = await startSidecar({ appId: "shop", nats, resources, flags: ["--max-body-size=1Mi"] });
});

afterAll(async () => {
  await sidecar?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

test.each([
  ["malformed JSON", '[{"key":', 400, "ERR_MALFORMED_REQUEST", "unexpected EOF"],
  ["no list", "{}", 400, "ERR_MALFORMED_REQUEST", "the body must be an array, but is of type object"],
  ["no key", '[{"value":1}]', 400, "ERR_MALFORMED_REQUEST", '"key" is a required field'],
  [
    "an ETag that is no revision",
    '[{"key":"k","etag":"x"}]',
    400,
    "ERR_STATE_SAVE",
    "invalid etag value: 'x' is not a number",
  ],
])("%s is refused with its reason", async (_, body, status, errorCode, reason) => {
  const answer = await sidecar.post(path, body);
  expect(answer.status).toBe(status);
  expect(answer.json()).toMatchObject({ errorCode, message: expect.stringContaining(reason) });
});

test("an unknown store is named", async () => {
  const answer = await sidecar.get("/v1.0/state/shop/key");
  expect(answer.status).toBe(400);
  expect(answer.json()).toMatchObject({
    errorCode: "ERR_STATE_STORE_NOT_FOUND",
    message: "state store shop is not found",
  });
});

test("a key of 300 odd bytes works", async () => {
  const odd = " .*>%&=/\\\t\"'ü漢😀{}~$@#?+;,<>^`";
  const key = Array.from({ length: 300 }, (_, index) => [...odd][index % [...odd].length]).join("");
  expect((await sidecar.post(path, [{ key, value: "odd" }])).status).toBe(204);
  expect((await sidecar.get(`${path}/${encodeURIComponent(key)}`)).text).toBe('"odd"');
  const bulk = await sidecar.post(`${path}/bulk`, { keys: [key] });
  expect(bulk.json()).toMatchObject([{ key, data: "odd" }]);
  expect((await sidecar.http(`${path}/${encodeURIComponent(key)}`, { method: "DELETE" })).status).toBe(204);
  expect((await sidecar.get(`${path}/${encodeURIComponent(key)}`)).status).toBe(204);
});

test("a value above the store's limit is refused with size, limit and remedy", async () => {
  const large = "x".repeat(200_000);
  const answer = await sidecar.post(path, [{ key: "large", value: large }]);
  expect(answer.status).toBe(500);
  expect(answer.json()).toMatchObject({ errorCode: "ERR_STATE_SAVE" });
  expect(answer.text).toContain("the value of key 'large' takes 200002 bytes, more than the 150000");
  expect(answer.text).toContain("metadata maxValueSize");
  const operations = [
    { operation: "upsert", request: { key: "small", value: 1 } },
    { operation: "upsert", request: { key: "large", value: large } },
  ];
  expect((await sidecar.post(`${path}/transaction`, { operations })).status).toBe(500);
  expect((await sidecar.get(`${path}/small`)).status).toBe(204);
});

test("a body above the limit is refused", async () => {
  const answer = await sidecar.post(path, Buffer.alloc(2 * 1024 * 1024, " "));
  expect(answer.status).toBe(400);
  expect(answer.json()).toMatchObject({ errorCode: "ERR_BODY_READ" });
});

test("a transaction of too many operations is refused with both numbers", async () => {
  const operations = Array.from({ length: 1001 }, (_, index) => ({
    operation: "upsert",
    request: { key: `k${index}`, value: index },
  }));
  const answer = await sidecar.post(`${path}/transaction`, { operations });
  expect(answer.status).toBe(400);
  expect(answer.json()).toMatchObject({ errorCode: "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS" });
  operations.pop();
  expect((await sidecar.post(`${path}/transaction`, { operations })).status).toBe(204);
});

test("the sidecar still serves after all of this", async () => {
  expect((await sidecar.post(path, [{ key: "alive", value: true }])).status).toBe(204);
  expect((await sidecar.get(`${path}/alive`)).text).toBe("true");
  expect(sidecar.running()).toBe(true);
});

test("a key prefix that cannot be one fails the component, which is left out with ignoreErrors", async () => {
  const wrong = stateComponent("prefixed", "state.in-memory", { keyPrefix: "a||b" });
  const good = { "good.yaml": stateComponent("good", "state.in-memory") };
  const what = "[INIT_COMPONENT_FAILURE]: initialization error occurred for prefixed (state.in-memory/v1): ";
  const reason = `${what}input key/keyPrefix 'a||b' can't contain '||'`;
  await using refused = await startSidecar({
    appId: "prefix",
    nats,
    resources: { ...good, "wrong.yaml": wrong },
    wait: "none",
  });
  expect(await refused.exited).toBe(1);
  expect(refused.logs()).toContain(`Failed to init component prefixed (state.in-memory/v1): ${reason}`);
  expect(refused.logs()).not.toContain("Component loaded: prefixed");
  await using lenient = await startSidecar({
    appId: "prefix",
    nats,
    resources: { ...good, "wrong.yaml": `${wrong}  ignoreErrors: true\n` },
  });
  await lenient.logged(/Ignoring error processing component: process component prefixed error: /);
  expect((await lenient.post("/v1.0/state/good", [{ key: "k", value: 1 }])).status).toBe(204);
  expect((await lenient.get("/v1.0/state/prefixed/k")).json()).toMatchObject({
    errorCode: "ERR_STATE_STORE_NOT_FOUND",
  });
});

test("a store whose encryption key is no secret ends the start with a reason, not in clear text", async () => {
  const resources = { "store.yaml": stateComponent("vault", "state.nats", { primaryEncryptionKey: "00" }) };
  await using refused = await startSidecar({ appId: "secret", nats, resources, wait: "none" });
  expect(await refused.exited).toBe(1);
  expect(refused.logs()).toContain("metadata primaryEncryptionKey must come by secretKeyRef");
});
