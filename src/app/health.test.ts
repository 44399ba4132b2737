import { expect, test } from "vitest";
import type { Clock } from "../../mesh/index.ts";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { silentLog } from "../../test/contract/silent-log.ts";
import { AppHealth, type Probe } from "./health.ts";

const options = { path: "/healthz", intervalMs: 5_000, timeoutMs: 500, threshold: 3 };

function start(probe: Probe = () => Promise.resolve(true), clock: Clock = manualClock()) {
  const health = new AppHealth(options, probe, clock, silentLog);
  const changes: boolean[] = [];
  health.onChange((healthy) => changes.push(healthy));
  return { health, changes };
}

test("an app is ill until its first good answer", () => {
  const { health, changes } = start();
  for (let i = 0; i < 5; i++) health.report(false);
  expect(health.healthy).toBe(false);
  health.report(true);
  expect(health.healthy).toBe(true);
  expect(changes).toEqual([true]);
});

test("only failures in a row make it ill", () => {
  const { health, changes } = start();
  for (const well of [true, false, false, true, false, false]) health.report(well);
  expect(health.healthy).toBe(true);
  health.report(false);
  expect(health.healthy).toBe(false);
  for (const well of [false, false, false, true, false, false]) health.report(well);
  expect(changes).toEqual([true, false, true]);
});

test("probes at once, then at every interval; a probe without answer fails at its time limit", async () => {
  const clock = manualClock();
  let probes = 0;
  const probe: Probe = (signal) => {
    probes++;
    return new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
  };
  const { health } = start(probe, clock);
  health.report(true);
  const ending = new AbortController();
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const running = health.run(ending.signal);
  for (let round = 1; round <= 3; round++) {
    await turn();
    expect(probes).toBe(round);
    clock.advance(499);
    await turn();
    expect(health.healthy).toBe(true);
    clock.advance(1);
    await turn();
    expect(health.healthy).toBe(round < 3);
    clock.advance(4_499);
    await turn();
    expect(probes).toBe(round);
    clock.advance(1);
  }
  await turn();
  expect(probes).toBe(4);
  expect(await health.firstProbe).toBe(false);
  ending.abort();
  await running;
});

test("a probe that throws counts as a failure", async () => {
  const ending = new AbortController();
  const { health } = start(() => {
    ending.abort();
    throw new Error("broken");
  });
  health.report(true);
  await health.run(ending.signal);
  expect(health.healthy).toBe(true);
});
