// Policies and metrics of locks, configuration and cryptography, seen from outside: a NATS server that stands still, a
// key that is not there yet.
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar, tempDir } from "../../kit/index.ts";
import type { HttpReply, Nats, Sidecar, TempDir } from "../../kit/index.ts";
import { binding as component } from "../bindings/resources.ts";
import { breakerState, seriesOf, valueOf } from "./series.ts";

const resiliency = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: more }
spec:
  policies:
    timeouts:
      quick: 300ms
      DefaultLockComponentOutboundTimeoutPolicy: 300ms
      DefaultConfigurationComponentOutboundTimeoutPolicy: 300ms
    retries:
      patient: { policy: constant, duration: 50ms, maxRetries: 200 }
      once: { policy: constant, duration: 10ms, maxRetries: 1 }
    circuitBreakers:
      fragile: { timeout: 5s, trip: consecutiveFailures >= 2 }
  targets:
    components:
      locks: { outbound: { timeout: quick, retry: patient } }
      brittle-locks: { outbound: { timeout: quick, circuitBreaker: fragile } }
      settings: { outbound: { timeout: quick, retry: patient } }
      brittle-settings: { outbound: { timeout: quick, circuitBreaker: fragile } }
      vault: { outbound: { retry: patient } }
      brittle-vault: { outbound: { retry: once, circuitBreaker: fragile } }
`;

let stack: AsyncDisposableStack;
let nats: Nats;
let keys: TempDir;
let sidecar: Sidecar;
/** Reads that took too long before the tests began. */
let refusedBefore: number;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  keys = stack.use(tempDir("keys"));
  const app = stack.use(await startApp({ fallback: () => ({}) }));
  const resources: Record<string, string> = { "resiliency.yaml": resiliency };
  for (const name of ["locks", "brittle-locks", "plain-locks"])
    resources[`${name}.yaml`] = component(name, "lock.nats");
  for (const name of ["settings", "brittle-settings", "plain-settings"])
    resources[`${name}.yaml`] = component(name, "configuration.nats");
  for (const name of ["vault", "brittle-vault"])
    resources[`${name}.yaml`] = component(name, "crypto.dapr.localstorage", { path: keys.path });
  sidecar = stack.use(await startSidecar({ appId: "shop", appPort: app.port, nats, resources }));
  // Buckets are made with their first use, which may take longer than a quick timeout.
  for (const store of ["locks", "brittle-locks", "plain-locks"]) await eventually(() => given(unlock(store)));
  for (const store of ["settings", "brittle-settings", "plain-settings"])
    await eventually(() => given(setting(store)));
  refusedBefore = await refusedReads();
});
afterAll(() => stack.disposeAsync());
afterEach(() => nats.resume());

async function given(call: Promise<HttpReply>): Promise<void> {
  const { status, text } = await call;
  if (status >= 300) throw new Error(`${status} ${text}`);
}

const holder = { resourceId: "r", lockOwner: "w" };
const lock = (store: string): Promise<HttpReply> =>
  sidecar.post(`/v1.0-alpha1/lock/${store}`, { ...holder, expiryInSeconds: 60 });
const unlock = (store: string): Promise<HttpReply> => sidecar.post(`/v1.0-alpha1/unlock/${store}`, holder);
const setting = (store: string): Promise<HttpReply> => sidecar.get(`/v1.0/configuration/${store}?key=none`);
const encrypt = (component: string, key: string): Promise<HttpReply> =>
  sidecar.http(`/v1.0-alpha1/crypto/${component}/encrypt`, {
    method: "PUT",
    body: "secret",
    headers: { "dapr-key-name": key, "dapr-key-wrap-algorithm": "AES" },
  });

const refusedReads = (): Promise<number> =>
  valueOf(sidecar, "component_configuration_count", {
    component: "plain-settings",
    operation: "get",
    success: "false",
  });

const activations = (target: string, policy: string): Promise<number> =>
  valueOf(sidecar, "resiliency_activations_total", { flow_direction: "outbound", policy, target });

test.each([
  ["a lock", "Lock_locks", () => unlock("locks"), 200],
  ["configuration", "Configuration_settings", () => setting("settings"), 204],
] as const)(
  "%s: tries are given up and made again until the store is back",
  async (_, target, call, status) => {
    await nats.pause();
    const answer = call();
    await eventually(async () => (await activations(target, "retry")) > 0);
    nats.resume();
    expect((await answer).status).toBe(status);
    expect(await activations(target, "timeout")).toBeGreaterThan(0);
  },
);

test.each([
  ["a lock", () => lock("plain-locks"), "ERR_TRY_LOCK", "failed to try acquiring lock"],
  [
    "configuration",
    () => setting("plain-settings"),
    "ERR_CONFIGURATION_GET",
    "failed to get [none] from Configuration store plain-settings",
  ],
] as const)("%s without an entry has the default of its kind", async (_, call, errorCode, words) => {
  await nats.pause();
  const answer = await call();
  expect([answer.status, answer.json()]).toEqual([
    500,
    { errorCode, message: `${words}: context deadline exceeded` },
  ]);
});

test.each([
  ["a lock", "Lock_brittle-locks", () => unlock("brittle-locks")],
  ["configuration", "Configuration_brittle-settings", () => setting("brittle-settings")],
] as const)("%s: an open breaker answers at once, and closes again", async (_, target, call) => {
  await nats.pause();
  for (let tries = 0; tries < 2; tries++) expect((await call()).text).toContain("context deadline exceeded");
  expect((await call()).text).toContain("circuit breaker is open");
  expect(await breakerState(sidecar, target)).toBe("open");
  nats.resume();
  await eventually(() => given(call()), { timeoutMs: 40_000 });
  expect(await breakerState(sidecar, target)).toBe("closed");
});

test("cryptography: a key that comes later is found by a later try", async () => {
  const answer = encrypt("vault", "late");
  await eventually(async () => (await activations("Crypto_vault", "retry")) > 0);
  writeFileSync(keys.join("late"), randomBytes(32).toString("base64"));
  expect((await answer).status).toBe(200);
});

test("cryptography: an open breaker answers at once", async () => {
  expect((await encrypt("brittle-vault", "never")).text).toContain("failed to wrap the file key");
  expect((await encrypt("brittle-vault", "never")).text).toContain("circuit breaker is open");
  expect(await breakerState(sidecar, "Crypto_brittle-vault")).toBe("open");
});

test("calls are counted and timed as the contract names them", async () => {
  const at = { component: "settings", namespace: "default" };
  const id = (await sidecar.get("/v1.0/configuration/settings/subscribe?key=a")).json<{ id: string }>().id;
  const over = await sidecar.get(`/v1.0/configuration/settings/${id}/unsubscribe`);
  expect(over.json()).toEqual({ ok: true });
  for (const operation of ["get", "subscribe", "unsubscribe"]) {
    const labels = { ...at, operation, success: "true" };
    expect(await valueOf(sidecar, "component_configuration_count", labels)).toBeGreaterThan(0);
    expect(await valueOf(sidecar, "component_configuration_latencies_count", labels)).toBeGreaterThan(0);
  }
  expect((await refusedReads()) - refusedBefore).toBe(1);
  const crypto = (component: string, success: string): Promise<number> =>
    valueOf(sidecar, "component_crypto_count", { component, operation: "crypto_op", success });
  expect([await crypto("vault", "true"), await crypto("brittle-vault", "false")]).toEqual([1, 2]);
  expect(
    await valueOf(sidecar, "component_crypto_latencies_count", { component: "vault", success: "true" }),
  ).toBe(1);
  // Locks have no series of their own, in Dapr neither.
  expect(await seriesOf(sidecar, "component_lock_count")).toEqual([]);
});
