/** State stores under a Resiliency policy: what is sent again, what is not, and what the client is told. */
import { expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { policiesOf } from "../../../test/contract/policies.ts";
import { bound, openInMemory, testStateBlock, type TestedBlock } from "../../../test/contract/state-block.ts";
import { EtagMismatch, type StateStore } from "./port.ts";

const policies = `  policies:
    timeouts: {t: 100ms}
    retries: {r: {policy: constant, duration: 1ms, maxRetries: 2}}
    circuitBreakers: {c: {trip: consecutiveFailures >= 2}}
  targets:
    components:
      retried: {outbound: {retry: r}}
      limited: {outbound: {timeout: t}}
      guarded: {outbound: {circuitBreaker: c}}
`;

type Call = { readonly calls: string[]; fail(name: string): Error | Promise<never> | undefined };

/** A block whose store `name` tells its calls and fails as it is told; keys without the app's prefix. */
async function lab(
  name: string,
  fail: Call["fail"],
  more: (step: (call: string) => Promise<void>) => Partial<StateStore> = () => ({}),
): Promise<{ tested: TestedBlock; calls: string[] }> {
  const inner = bound(await openInMemory(manualClock()));
  const calls: string[] = [];
  const step = async (call: string): Promise<void> => {
    calls.push(call);
    const error = await fail(call);
    if (error !== undefined) throw error;
  };
  const bare = (key: string): string => key.replace("app||", "");
  const told: StateStore = {
    ...inner,
    get: async (key, options) => (await step(`get ${bare(key)}`), inner.get(key, options)),
    getMany: async (keys, options) => (await step("getMany"), inner.getMany!(keys, options)),
    set: async (write, signal) => (await step(`set ${bare(write.key)}`), inner.set(write, signal)),
    delete: async (write, signal) => (await step(`delete ${bare(write.key)}`), inner.delete(write, signal)),
    transact: async (...args) => (await step("transact"), inner.transact!(...args)),
    ...more(step),
  };
  const tested = await testStateBlock({ stores: { [name]: told }, policies: policiesOf(policies) });
  return { tested, calls };
}

/** Fails the first calls of a kind. */
function first(times: number, what: RegExp, error = new Error("boom")): Call["fail"] {
  let left = times;
  return (call) => (what.test(call) && left-- > 0 ? error : undefined);
}

const url = "/v1.0/state/retried";
const body = (...keys: string[]): { body: string } => ({
  body: JSON.stringify(keys.map((key) => ({ key, value: 1 }))),
});

it.each([
  ["GET", `${url}/a`, {}, 204, "get a"],
  ["DELETE", `${url}/a`, {}, 204, "delete a"],
  ["POST", url, body("a"), 204, "set a"],
  ["POST", `${url}/bulk`, { body: '{"keys":["a","b"]}' }, 200, "getMany"],
  [
    "POST",
    `${url}/transaction`,
    { body: '{"operations":[{"operation":"upsert","request":{"key":"a","value":1}}]}' },
    204,
    "transact",
  ],
])("%s %s is tried again", async (verb, path, init, status, call) => {
  const { tested, calls } = await lab("retried", first(2, /./));
  expect((await tested.http(verb, path, init)).status).toBe(status);
  expect(calls).toEqual([call, call, call]);
  expect(tested.counted).toHaveLength(1);
});

it("tells the last failure when no try succeeds", async () => {
  const { tested, calls } = await lab("retried", () => new Error("boom"));
  const { status, text } = await tested.http("GET", `${url}/a`);
  expect([status, JSON.parse(text), calls.length]).toEqual([
    500,
    { errorCode: "ERR_STATE_GET", message: "fail to get a from state store retried: boom" },
    3,
  ]);
});

it("sends only those items again that failed", async () => {
  const { tested, calls } = await lab("retried", first(2, /[bc]/));
  expect((await tested.http("POST", url, body("a", "b", "c", "d"))).status).toBe(204);
  expect(calls).toEqual(["set a", "set b", "set c", "set d", "set b", "set c"]);
});

const together =
  (has: boolean) =>
  (step: (call: string) => Promise<void>): Partial<StateStore> => ({
    setMany: async () => (await step("setMany"), has),
  });

it("sends all of them again to a store that takes them in one call", async () => {
  const { tested, calls } = await lab("retried", first(2, /./), together(true));
  expect((await tested.http("POST", url, body("a", "b"))).status).toBe(204);
  expect(calls).toEqual(["setMany", "setMany", "setMany"]);
  const refused = await lab("retried", () => new EtagMismatch("x"), together(true));
  const { status, text } = await refused.tested.http("POST", url, body("a", "b"));
  expect([status, refused.calls]).toEqual([409, ["setMany"]]);
  expect(text).toContain("store retried: possible etag mismatch. error from state store: x");
  expect(refused.tested.counted).toEqual(["retried default set false"]);
});

it("sends them one by one when that call turns out to be missing", async () => {
  const { tested, calls } = await lab("retried", first(1, /b/), together(false));
  expect((await tested.http("POST", url, body("a", "b"))).status).toBe(204);
  expect(calls).toEqual(["setMany", "set a", "set b", "set b"]);
});

it("never sends an item again whose ETag was refused, and still tells of it", async () => {
  const once = first(1, /b/);
  const { tested, calls } = await lab("retried", (call) =>
    call === "set a" ? new EtagMismatch() : once(call),
  );
  const { status } = await tested.http("POST", url, body("a", "b", "c"));
  expect(status).toBe(409);
  expect(calls).toEqual(["set a", "set b", "set c", "set b"]);
  expect(tested.counted).toEqual(["retried default set false"]);
});

it.each([
  ["POST", url, body("a"), 409],
  ["POST", url, body("a", "b"), 409],
  ["DELETE", `${url}/a`, {}, 409],
])("%s %s with a refused ETag is not tried again", async (verb, path, init, status) => {
  const { tested, calls } = await lab("retried", () => new EtagMismatch());
  expect((await tested.http(verb, path, init)).status).toBe(status);
  expect(new Set(calls).size).toBe(calls.length);
});

it("says that the time is up", async () => {
  const { tested } = await lab("limited", () => new Promise(() => {}));
  const one = await tested.http("GET", "/v1.0/state/limited/a");
  expect(one.text).toContain("fail to get a from state store limited: context deadline exceeded");
  const many = await tested.http("POST", "/v1.0/state/limited", body("a", "b"));
  expect(many.text).toContain("failed saving state in state store limited: context deadline exceeded");
});

it("is refused by an open breaker, for which a refused ETag is no failure", async () => {
  let error: Error = new EtagMismatch();
  const { tested, calls } = await lab("guarded", () => error);
  const save = (): ReturnType<TestedBlock["http"]> => tested.http("POST", "/v1.0/state/guarded", body("a"));
  for (let i = 0; i < 3; i++) expect((await save()).status).toBe(409);
  error = new Error("boom");
  for (let i = 0; i < 2; i++) expect((await save()).text).toContain("boom");
  expect((await save()).text).toContain("circuit breaker is open");
  expect(calls).toHaveLength(5);
});
