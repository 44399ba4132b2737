import { expect, test } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { silentLog } from "../../../test/contract/silent-log.ts";
import type { Middleware, MiddlewareReply, MiddlewareRequest } from "../../middleware/port.ts";
import { metadataSchema, open } from "./sentinel.ts";

const answer: MiddlewareReply = { status: 200, headers: [], body: new Uint8Array(0) };

function request(path: string): MiddlewareRequest {
  return {
    verb: "GET",
    path,
    query: "",
    headers: [],
    remoteAddress: "",
    protocol: "HTTP/1.1",
    maxBodyBytes: 0,
    signal: new AbortController().signal,
    body: () => Promise.resolve(new Uint8Array(0)),
    setBody: () => {},
  };
}

async function sentinel(rules: Record<string, readonly object[]>) {
  const clock = manualClock();
  const metadata = Object.fromEntries(
    Object.entries(rules).map(([name, list]) => [name, JSON.stringify(list)]),
  );
  type Context = Parameters<typeof open>[0];
  const middleware: Middleware = await open({ metadata, clock, log: silentLog } as unknown as Context);
  const ask = async (path = "/a", next = () => Promise.resolve(answer)): Promise<number> =>
    (await middleware.handle(request(path), next)).status;
  return { clock, ask };
}

test("flow: so many in an interval, of this resource alone", async () => {
  const { clock, ask } = await sentinel({ flowRules: [{ resource: "GET:/a", threshold: 2 }] });
  expect([await ask(), await ask(), await ask(), await ask("/b")]).toEqual([200, 200, 429, 200]);
  clock.advance(1_000);
  expect([await ask(), await ask(), await ask()]).toEqual([200, 200, 429]);
});

test("flow: waiting in a queue", async () => {
  const rule = { resource: "GET:/a", threshold: 10, controlBehavior: 1, maxQueueingTimeMs: 150 };
  const { clock, ask } = await sentinel({ flowRules: [rule] });
  const answers = [ask(), ask(), ask()];
  expect(await answers[0]).toBe(200);
  expect(await answers[2]).toBe(429);
  clock.advance(100);
  expect(await answers[1]).toBe(200);
});

test("isolation: so many at once", async () => {
  const { ask } = await sentinel({ isolationRules: [{ Resource: "GET:/a", threshold: 1 }] });
  const { promise, resolve } = Promise.withResolvers<MiddlewareReply>();
  const first = ask("/a", () => promise);
  expect(await ask()).toBe(429);
  resolve(answer);
  expect(await first).toBe(200);
  expect(await ask()).toBe(200);
  await expect(ask("/a", () => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
  expect(await ask()).toBe(200);
});

test("breaker: opens when too many are slow, lets one try, and closes", async () => {
  const rule = {
    resource: "GET:/a",
    strategy: 0,
    retryTimeoutMs: 5_000,
    minRequestAmount: 2,
    statIntervalMs: 10_000,
    maxAllowedRtMs: 50,
    threshold: 0.5,
  };
  const { clock, ask } = await sentinel({ circuitBreakerRules: [rule] });
  const slow = (): Promise<MiddlewareReply> => {
    clock.advance(60);
    return Promise.resolve(answer);
  };
  expect([await ask("/a", slow), await ask("/a", slow), await ask()]).toEqual([200, 200, 429]);
  clock.advance(5_000);
  expect([await ask("/a", slow), await ask()]).toEqual([200, 429]);
  clock.advance(5_000);
  expect([await ask(), await ask()]).toEqual([200, 200]);
});

test("system: all requests together", async () => {
  const perSecond = await sentinel({ systemRules: [{ metricType: 3, triggerCount: 2 }] });
  expect([await perSecond.ask("/a"), await perSecond.ask("/b"), await perSecond.ask("/c")]).toEqual([
    200, 200, 429,
  ]);
  const { clock, ask } = await sentinel({ systemRules: [{ metricType: 1, triggerCount: 10 }] });
  await ask("/a", () => {
    clock.advance(20);
    return Promise.resolve(answer);
  });
  expect(await ask("/b")).toBe(429);
  clock.advance(1_000);
  expect(await ask("/b")).toBe(200);
  const { promise, resolve } = Promise.withResolvers<MiddlewareReply>();
  const together = await sentinel({ systemRules: [{ metricType: 2, triggerCount: 1 }] });
  const first = together.ask("/a", () => promise);
  expect(await together.ask("/b")).toBe(429);
  resolve(answer);
  await first;
});

test.each([
  [{ flowRules: [{ threshold: 1 }] }, /flowRules\[0\]\.resource": write for example/],
  [{ flowRules: [{ resource: "a" }] }, /flowRules\[0\]\.threshold": write a number/],
  [
    { flowRules: [{ resource: "a", threshold: 1, tokenCalculateStrategy: 1 }] },
    /warming up and memory are not there/,
  ],
  [{ systemRules: [{ metricType: 4, triggerCount: 1 }] }, /load and CPU are not there/],
  [{ isolationRules: ["x" as unknown as object] }, /must be a JSON list of rules/],
])("%j is refused", async (rules, message) => {
  await expect((async () => sentinel(rules))()).rejects.toThrow(message);
});

test("its metadata are all optional", () => {
  expect(Object.values(metadataSchema).some((field) => "required" in field)).toBe(false);
});
