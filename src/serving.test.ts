import { describe, expect, test } from "vitest";
import { manualClock } from "../test/contract/manual-clock.ts";
import { silentLog } from "../test/contract/silent-log.ts";
import { emptyAppConfig } from "./app/config.ts";
import { Serving } from "./serving.ts";

/** A mesh and one block that write down what they are told; `serve` waits for the test when `slow`. */
function start(slow = false, appReady = () => Promise.resolve()) {
  const told: string[] = [];
  const gates: (() => void)[] = [];
  const clock = manualClock();
  let count = 0;
  const serving = new Serving({
    mesh: {
      async serve() {
        const name = ++count;
        if (slow) await new Promise<void>((go) => gates.push(go));
        told.push(`serve ${name}`);
        let draining: Promise<void> | undefined;
        return {
          drain(graceMs) {
            told.push(`drain ${name} ${graceMs}`);
            // Calls in flight that never end, unless they were given a time at the first drain.
            draining ??= Number.isFinite(graceMs) ? Promise.resolve() : new Promise(() => {});
            return draining;
          },
        };
      },
      announce: async (unready) =>
        void told.push(`announce${unready === undefined ? "" : ` ${unready.state}`}`),
    },
    receive: () => Promise.reject(new Error("unused")),
    blocks: [
      {
        appConfigured: ({ entities }) => void told.push(`hosts ${entities.join()}`),
        appReady: () => appReady().then(() => void told.push("ready")),
        appUnready: async (_graceMs, why) => void told.push(`unready ${why}`),
        stop: async (graceMs) => void told.push(`stop ${graceMs}`),
      },
    ],
    clock,
    askForConfig: () => Promise.resolve({ ...emptyAppConfig, entities: ["A"] }),
    appAt: "http://127.0.0.1:3000",
    log: silentLog,
    onServing: () => void told.push("serving"),
  });
  return { serving, told, gates, clock };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("serving", () => {
  test("begins with calls, then deliveries; announces changes; ends without waiting for calls", async () => {
    const { serving, told, clock } = start();
    await serving.set(true);
    await serving.set(true);
    await serving.set(false);
    await serving.set(true);
    expect(told).toEqual([
      "serve 1",
      "announce",
      "hosts A",
      "ready",
      "serving",
      "drain 1 Infinity",
      "announce ill",
      "unready ill",
      "serve 2",
      "announce",
      "ready",
      "serving",
    ]);
    told.length = 0;
    const stopping = serving.stop(50);
    await turn();
    clock.advance(50);
    await stopping;
    expect(told.sort((a, b) => a.localeCompare(b))).toEqual(["drain 1 50", "drain 2 50", "stop 50"]);
  });

  test("changes while it begins are followed in the end", async () => {
    const { serving, told, gates } = start(true);
    const done = serving.set(true);
    await turn();
    for (const wanted of [false, true, false]) void serving.set(wanted);
    gates.shift()!();
    await done;
    expect(told).toEqual([
      "serve 1",
      "announce",
      "hosts A",
      "ready",
      "serving",
      "drain 1 Infinity",
      "announce ill",
      "unready ill",
    ]);
  });

  test("an app that does not say what it wants delivered is served after a while", async () => {
    const answer = Promise.withResolvers<void>();
    const { serving, told, clock } = start(false, () => answer.promise);
    const done = serving.set(true);
    await turn();
    clock.advance(4_999);
    await turn();
    expect(told).not.toContain("serving");
    clock.advance(1);
    await turn();
    expect(told.at(-1)).toBe("serving");
    answer.resolve();
    await done;
    expect(told.slice(-2)).toEqual(["serving", "ready"]);
  });

  test("a stop while it begins leaves nothing behind", async () => {
    const { serving, told, gates } = start(true);
    const done = serving.set(true);
    await turn();
    await serving.stop(50);
    gates.shift()!();
    await done;
    expect(told).toEqual(["stop 50", "serve 1", "drain 1 0"]);
    await serving.set(true);
    expect(gates).toEqual([]);
  });

  test("held back, calls go on and deliveries never begin again", async () => {
    const { serving, told } = start();
    await serving.set(true);
    told.length = 0;
    await serving.hold(50);
    await serving.set(false);
    await serving.set(true);
    expect(told).toEqual([
      "unready ending",
      "drain 1 Infinity",
      "announce ill",
      "unready ill",
      "serve 2",
      "announce",
      "serving",
    ]);
  });
});
