import { describe, expect, it } from "vitest";
import type { MetadataSchema } from "./component.ts";
import { readMetadata } from "./metadata.ts";

const schema = {
  plain: { kind: "boolean", description: "" },
  strict: { kind: "boolean", description: "", strict: true },
  seconds: { kind: "duration", description: "" },
  ms: { kind: "duration", description: "", bareUnit: "ms" },
  positive: { kind: "duration", description: "", min: 0 },
  choice: { kind: "string", description: "", oneOf: ["SHA-256", "none"] },
} as const satisfies MetadataSchema;

const read = (properties: Record<string, string>): object => readMetadata(schema, "state", properties).values;

describe("metadata of components", () => {
  it("takes any spelling of true, unless the field is strict", () => {
    expect(read({ plain: "yes", strict: "T" })).toEqual({ plain: true, strict: true });
    expect(read({ plain: " On\n", strict: "1" })).toEqual({ plain: true, strict: true });
    expect(read({ PLAIN: "off", Strict: "0" })).toEqual({ plain: false, strict: false });
    expect(() => read({ strict: "yes" })).toThrow('metadata field "strict": "yes" is neither true nor false');
  });

  it("counts bare durations in the unit of the field", () => {
    expect(read({ seconds: "5", ms: "5" })).toEqual({ seconds: 5_000, ms: 5 });
    expect(read({ seconds: "5ms", ms: "-1" })).toEqual({ seconds: 5, ms: -1 });
    expect(read({ ms: "1m" })).toEqual({ ms: 60_000 });
    expect(() => read({ ms: "soon" })).toThrow("no duration; write e.g. 30s, 1h30m, or milliseconds");
  });

  it("refuses durations below what the field takes", () => {
    expect(read({ positive: "0" })).toEqual({ positive: 0 });
    expect(() => read({ positive: "-1s" })).toThrow('metadata field "positive": "-1s" is less than 0');
  });

  it("takes one of several words in any letter case", () => {
    expect(read({ choice: "None" })).toEqual({ choice: "none" });
    expect(read({ choice: "sha-256" })).toEqual({ choice: "SHA-256" });
    expect(() => read({ choice: "md5" })).toThrow('"md5" is not one of SHA-256, none');
  });
});
