import { expect, test } from "vitest";
import { silentLog } from "../../test/contract/silent-log.ts";
import { readAppConfig } from "./config.ts";

function read(value: unknown) {
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (text: string) => void warnings.push(text) };
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return { ...readAppConfig(text, { disseminateTimeoutMs: 30_000, log }), warnings };
}

const standard = {
  idleTimeoutMs: 3_600_000,
  drainTimeoutMs: 2_000,
  reentrancy: { enabled: false, maxStackDepth: 32 },
};

test("defaults", () => {
  for (const empty of [{}, "null", { entities: null, reentrancy: null, drainRebalancedActors: null }]) {
    expect(read(empty)).toEqual({
      entities: [],
      settings: new Map(),
      drainRebalancedActors: true,
      warnings: [],
    });
  }
  expect(read({ entities: ["A"] }).settings).toEqual(new Map([["A", standard]]));
});

test("everything, for all types and for some", () => {
  const { entities, settings, drainRebalancedActors, warnings } = read({
    entities: ["A", "B"],
    actorIdleTimeout: "30m",
    actorScanInterval: "1s",
    drainOngoingCallTimeout: "5s",
    drainRebalancedActors: false,
    reentrancy: { enabled: true, maxStackDepth: 7 },
    remindersStoragePartitions: 7,
    entitiesConfig: [
      { entities: ["B"], drainOngoingCallTimeout: "3s", drainRebalancedActors: true },
      { entities: ["C"] },
    ],
  });
  expect({ entities, drainRebalancedActors }).toEqual({ entities: ["A", "B"], drainRebalancedActors: false });
  expect(settings).toEqual(
    new Map([
      [
        "A",
        { idleTimeoutMs: 1_800_000, drainTimeoutMs: 5_000, reentrancy: { enabled: true, maxStackDepth: 7 } },
      ],
      // Nothing of the whole app's settings is left.
      ["B", { ...standard, drainTimeoutMs: 3_000 }],
    ]),
  );
  expect(warnings).toEqual([
    expect.stringContaining("remindersStoragePartitions"),
    expect.stringContaining('the type "C", which is not in "entities"'),
  ]);
});

test("a duration that cannot be read: no types when it is the app's, the default when it is a type's", () => {
  for (const name of ["actorIdleTimeout", "drainOngoingCallTimeout"]) {
    const whole = read({ entities: ["A"], [name]: "soon" });
    expect(whole.entities).toEqual([]);
    expect(whole.settings.size).toBe(0);
    expect(whole.warnings).toEqual([expect.stringContaining('time: invalid duration "soon"')]);
    const one = read({ entities: ["A"], entitiesConfig: [{ entities: ["A"], [name]: "soon" }] });
    expect(one.settings).toEqual(new Map([["A", standard]]));
    expect(one.warnings).toHaveLength(1);
  }
});

test("draining ends before the dissemination does", () => {
  const { settings, warnings } = read({
    entities: ["A", "B"],
    drainOngoingCallTimeout: "30s",
    entitiesConfig: [{ entities: ["B"], drainOngoingCallTimeout: "29s" }],
  });
  expect(settings.get("A")!.drainTimeoutMs).toBe(24_000);
  expect(settings.get("B")!.drainTimeoutMs).toBe(29_000);
  expect(warnings).toEqual([
    expect.stringMatching(/of the app .*meets or exceeds the dissemination timeout/),
  ]);
});

test.each([
  "[",
  "[]",
  '{"entities":"A"}',
  '{"entities":[1]}',
  '{"reentrancy":{"enabled":"yes"}}',
  '{"entitiesConfig":{}}',
])("%s is refused", (text) => {
  expect(() => read(text)).toThrow();
});
