import { describe, expect, it, vi } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { Breaker } from "./breaker.ts";
import { builtInRetries } from "./built-in.ts";
import type { Monitor } from "./monitor.ts";
import {
  type Failure,
  finalFailure,
  ignoredFailure,
  Policy,
  type PolicyCall,
  type PolicyInit,
} from "./policy.ts";
import type { RetryRule } from "./retry.ts";

const threeRetries: RetryRule = { ...builtInRetries.DaprBuiltInServiceRetries, maxRetries: 3 };

function lab(parts: Partial<Pick<PolicyInit, "timeoutMs" | "retry">> & { maxFailures?: number }) {
  const clock = manualClock();
  const told: string[] = [];
  const monitor: Monitor = {
    begin: (state) => void told.push(`begin ${state ?? "-"}`),
    timeout: () => void told.push("timeout"),
    retry: (tries, waitMs) => void told.push(`retry ${tries} ${waitMs}`),
    recovered: (tries) => void told.push(`recovered ${tries}`),
    breaker: (state) => void told.push(`breaker ${state}`),
  };
  const { maxFailures, timeoutMs, retry } = parts;
  const rule = {
    maxRequests: 1,
    intervalMs: 0,
    openMs: 10_000,
    trips: (counts: { consecutiveFailures: number }) => counts.consecutiveFailures >= maxFailures!,
  };
  const breaker =
    maxFailures === undefined ? undefined : new Breaker(rule, clock, (state) => monitor.breaker(state, ""));
  const policy = new Policy({ timeoutMs, retry, breaker, clock, random: () => 0.5, monitor });
  /** Runs to the end, letting time pass. */
  const run = async <T>(
    attempt: (signal: AbortSignal, tries: number) => Promise<T>,
    call: Partial<PolicyCall<T>> = {},
  ): Promise<T> => {
    const running = policy.run(attempt, { signal: new AbortController().signal, ...call });
    let done = false;
    running.then(
      () => (done = true),
      () => (done = true),
    );
    while (!done) {
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
      if (!done) clock.advance(100);
    }
    return running;
  };
  return { clock, told, policy, run };
}

/** Fails so often, then gives the number of tries. */
function failing(times: number): (signal: AbortSignal, tries: number) => Promise<number> {
  return (_, tries) => (tries <= times ? Promise.reject(new Error(`no ${tries}`)) : Promise.resolve(tries));
}

const status = (value: number): Failure | undefined =>
  value < 400 ? undefined : { kind: "http", code: value };

describe("retries", () => {
  it("repeat a call until it succeeds", async () => {
    const { run, told, clock } = lab({ retry: threeRetries });
    const startMs = clock.nowMs();
    await expect(run(failing(3))).resolves.toBe(4);
    expect(clock.nowMs() - startMs).toBe(3_000);
    expect(told).toEqual(["begin -", "retry 1 1000", "retry 2 1000", "retry 3 1000", "recovered 4"]);
  });

  it("end with the last error", async () => {
    const { run } = lab({ retry: threeRetries });
    await expect(run(failing(9))).rejects.toThrow("no 4");
  });

  it("end with the last answer, and free those before it", async () => {
    const { run } = lab({ retry: { ...threeRetries, httpCodes: [{ first: 500, last: 599 }] } });
    const freed: number[] = [];
    const answers = [500, 501, 404, 200];
    const call = { judge: status, discard: (value: number) => void freed.push(value) };
    await expect(run((_, tries) => Promise.resolve(answers[tries - 1]!), call)).resolves.toBe(404);
    expect(freed).toEqual([500, 501]);
  });

  it("look at gRPC codes by their own list, and at no list for other failures", async () => {
    const retry = { ...threeRetries, httpCodes: [], grpcCodes: [{ first: 14, last: 14 }] };
    const tries = async (failure: Failure): Promise<number> => {
      let count = 0;
      await lab({ retry }).run(() => Promise.resolve(++count), { judge: () => failure });
      return count;
    };
    expect(await tries({ kind: "grpc", code: 14 })).toBe(4);
    expect(await tries({ kind: "grpc", code: 13 })).toBe(1);
    expect(await tries({ kind: "http", code: 503 })).toBe(1);
    expect(await tries({ kind: "any" })).toBe(4);
    expect(await tries(finalFailure)).toBe(1);
    expect(await tries(ignoredFailure)).toBe(1);
  });

  it("leave out what cannot be repeated", async () => {
    const { run } = lab({ retry: threeRetries });
    await expect(run(failing(9), { repeatable: false })).rejects.toThrow("no 1");
  });

  it("end when nobody waits any more", async () => {
    const { run } = lab({ retry: threeRetries });
    const gone = new AbortController();
    const attempt = vi.fn<() => Promise<never>>(() => {
      gone.abort(new Error("gone"));
      return Promise.reject(new Error("no"));
    });
    await expect(run(attempt, { signal: gone.signal })).rejects.toThrow("no");
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  it("end in the middle of a wait with the last outcome", async () => {
    const { policy } = lab({ retry: threeRetries });
    const gone = new AbortController();
    const attempt = vi.fn<() => Promise<number>>(() => Promise.resolve(503));
    const running = policy.run(attempt, { signal: gone.signal, judge: status });
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    gone.abort(new Error("gone"));
    await expect(running).resolves.toBe(503);
    expect(attempt).toHaveBeenCalledTimes(1);
  });
});

describe("a timeout", () => {
  it("ends each attempt, tells it to stop, and frees what comes later", async () => {
    const { run, told } = lab({ timeoutMs: 300, retry: { ...threeRetries, maxRetries: 1 } });
    const reasons: string[] = [];
    const freed: string[] = [];
    const slow = (signal: AbortSignal, tries: number): Promise<string> =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          reasons.push(String(signal.reason.message));
          resolve(`late ${tries}`);
        });
      });
    const call = { discard: (value: string) => void freed.push(value) };
    await expect(run(slow, call)).rejects.toThrow("context deadline exceeded");
    expect(reasons).toEqual(["context deadline exceeded", "context deadline exceeded"]);
    expect(freed).toEqual(["late 1", "late 2"]);
    expect(told).toEqual(["begin -", "timeout", "retry 1 1000"]);
  });

  it("is the outcome also when the attempt fails because of it", async () => {
    const { run } = lab({ timeoutMs: 300 });
    const slow = (signal: AbortSignal): Promise<never> =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("cancelled"))));
    await expect(run(slow)).rejects.toThrow("context deadline exceeded");
  });

  it("passes on that the caller went away, also while a value is being read", async () => {
    const { policy } = lab({ timeoutMs: 300 });
    const gone = new AbortController();
    let seen: AbortSignal | undefined;
    await policy.run(
      (signal) => {
        seen = signal;
        return Promise.resolve("body");
      },
      { signal: gone.signal, discard: () => {} },
    );
    gone.abort(new Error("gone"));
    expect(seen?.reason).toEqual(new Error("gone"));
  });
});

describe("a circuit breaker", () => {
  it("counts each try and ends the retries when it opens", async () => {
    const { run, told } = lab({ retry: threeRetries, maxFailures: 2 });
    const attempt = vi.fn<ReturnType<typeof failing>>(failing(9));
    await expect(run(attempt)).rejects.toThrow("circuit breaker is open");
    expect(attempt).toHaveBeenCalledTimes(2);
    expect(told).toEqual(["begin closed", "retry 1 1000", "breaker open", "retry 2 1000"]);
    await expect(run(attempt)).rejects.toThrow("circuit breaker is open");
    expect(attempt).toHaveBeenCalledTimes(2);
  });

  it("counts timeouts and final failures, and takes a refusal for a success", async () => {
    const { run } = lab({ timeoutMs: 100, maxFailures: 2 });
    const call = { judgeError: () => ignoredFailure };
    for (let i = 0; i < 5; i++) await expect(run(failing(9), call)).rejects.toThrow("no 1");
    await expect(run(() => new Promise(() => {}))).rejects.toThrow("context deadline exceeded");
    await expect(run(failing(9), { judgeError: () => finalFailure })).rejects.toThrow("no 1");
    await expect(run(failing(9))).rejects.toThrow("circuit breaker is open");
  });

  it("does not count a call whose caller went away", async () => {
    const { run } = lab({ maxFailures: 1 });
    const gone = new AbortController();
    const leave = (): Promise<never> => {
      gone.abort(new Error("gone"));
      return Promise.reject(new Error("cancelled"));
    };
    await expect(run(leave, { signal: gone.signal })).rejects.toThrow("cancelled");
    await expect(run(failing(0))).resolves.toBe(1);
  });
});
