import { describe, expect, it } from "vitest";
import { DEFAULT_CONFIGURATION } from "../../config/kinds/configuration.ts";
import { readLimits, readRate, readResource, tracingIsOff } from "./settings.ts";

describe("the sampling rate", () => {
  it.each([
    ["", 0.0001, false],
    ["1", 1, true],
    ["0.5", 0.5, true],
    ["5e-1", 0.5, true],
    ["2", 1, true],
    ["-1", 0, true],
    ["always", 0.0001, true],
  ])("%j is %d", (text, rate, given) => expect(readRate(text)).toEqual({ rate, given }));

  it.each([
    ["0", true],
    ["0.0", true],
    ["", false],
    ["zero", false],
    ["-1", false],
    ["0.1", false],
  ])("%j turns tracing off: %s", (samplingRate, off) =>
    expect(tracingIsOff({ ...DEFAULT_CONFIGURATION.tracing, samplingRate })).toBe(off),
  );
});

it("reads the resource from OpenTelemetry's variables", () => {
  expect(readResource("app", {})).toEqual(["service.name", "app"]);
  const env = { OTEL_SERVICE_NAME: "other", OTEL_RESOURCE_ATTRIBUTES: "a=1,service.name=no, b=x%20y,broken" };
  expect(readResource("app", env)).toEqual(["service.name", "other", "a", "1", "b", "x y"]);
});

it("reads the limits of a queue, within bounds", () => {
  expect(readLimits({})).toEqual({ maxQueue: 2_048, maxBatch: 512, delayMs: 5_000 });
  const env = {
    OTEL_BSP_MAX_QUEUE_SIZE: "10",
    OTEL_BSP_SCHEDULE_DELAY: "50",
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "x",
  };
  expect(readLimits(env)).toEqual({ maxQueue: 10, maxBatch: 10, delayMs: 50 });
});
