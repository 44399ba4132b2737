import { describe, expect, it } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { Breaker, type BreakerRule, type BreakerState } from "./breaker.ts";

const rule: BreakerRule = {
  maxRequests: 1,
  intervalMs: 0,
  openMs: 1_000,
  trips: (counts) => counts.consecutiveFailures > 2,
};

function lab(changed: Partial<BreakerRule> = {}) {
  const clock = manualClock();
  const changes: BreakerState[] = [];
  const breaker = new Breaker({ ...rule, ...changed }, clock, (state) => changes.push(state));
  const call = (outcome: "success" | "failure" | "unknown"): void => breaker.settle(breaker.enter(), outcome);
  const fail = (times: number): void => {
    for (let i = 0; i < times; i++) call("failure");
  };
  return { clock, changes, breaker, call, fail };
}

describe("a circuit breaker", () => {
  it("opens by its rule, refuses, tries one call after its time, and closes with its success", () => {
    const { clock, changes, breaker, call, fail } = lab();
    fail(2);
    call("success");
    fail(2);
    expect(breaker.state).toBe("closed");
    fail(1);
    expect(breaker.state).toBe("open");
    expect(() => breaker.enter()).toThrow("circuit breaker is open");
    clock.advance(999);
    expect(breaker.state).toBe("open");
    clock.advance(1);
    const trial = breaker.enter();
    expect(breaker.state).toBe("half-open");
    expect(() => breaker.enter()).toThrow("too many requests");
    breaker.settle(trial, "success");
    expect(breaker.state).toBe("closed");
    expect(changes).toEqual(["open", "half-open", "closed"]);
  });

  it("opens again when the trial call fails", () => {
    const { clock, changes, breaker, call, fail } = lab();
    fail(3);
    clock.advance(1_000);
    call("failure");
    expect(breaker.state).toBe("open");
    clock.advance(1_000);
    expect(breaker.state).toBe("half-open");
    expect(changes).toEqual(["open", "half-open", "open", "half-open"]);
  });

  it("closes after as many successes as it lets calls through", () => {
    const { clock, breaker, fail } = lab({ maxRequests: 2 });
    fail(3);
    clock.advance(1_000);
    const [first, second] = [breaker.enter(), breaker.enter()];
    expect(() => breaker.enter()).toThrow("too many requests");
    breaker.settle(first, "success");
    expect(breaker.state).toBe("half-open");
    breaker.settle(second, "success");
    expect(breaker.state).toBe("closed");
  });

  it("clears its counts after each interval while closed", () => {
    const { clock, breaker, fail } = lab({ intervalMs: 500 });
    fail(2);
    clock.advance(500);
    fail(2);
    expect(breaker.state).toBe("closed");
    fail(1);
    expect(breaker.state).toBe("open");
  });

  it("does not count a call that began before the last change", () => {
    const { clock, breaker, fail } = lab();
    const slow = breaker.enter();
    fail(3);
    clock.advance(1_000);
    expect(breaker.state).toBe("half-open");
    breaker.settle(slow, "failure");
    expect(breaker.state).toBe("half-open");
  });

  it("gives the place of a trial call back whose caller went away", () => {
    const { clock, breaker, call, fail } = lab();
    fail(3);
    clock.advance(1_000);
    call("unknown");
    expect(breaker.state).toBe("half-open");
    call("success");
    expect(breaker.state).toBe("closed");
  });

  it("gives its rule all counts", () => {
    const seen: string[] = [];
    const { call } = lab({
      trips: (counts) => {
        seen.push(JSON.stringify(Object.values(counts)));
        return false;
      },
    });
    for (const outcome of ["success", "success", "failure", "failure"] as const) call(outcome);
    // requests, totalSuccesses, totalFailures, consecutiveSuccesses, consecutiveFailures
    expect(seen).toEqual(["[3,2,1,0,1]", "[4,2,2,0,2]"]);
  });
});
