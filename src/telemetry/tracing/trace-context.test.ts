import { describe, expect, it } from "vitest";
import { binaryTrace, readBinaryTrace, readTrace } from "./trace-context.ts";

const trace = "0af7651916cd43dd8448eb211c80319c";
const span = "b7ad6b7169203331";
const parent = `00-${trace}-${span}-01`;

describe("a trace context", () => {
  it.each([
    [parent, true],
    [`01-${trace}-${span}-00-more`, true],
    [`${parent}-more`, false],
    [`ff-${trace}-${span}-01`, false],
    [`00-${"0".repeat(32)}-${span}-01`, false],
    [`00-${trace}-${"0".repeat(16)}-01`, false],
    [parent.toUpperCase(), false],
    [`00-${trace}-${span}`, false],
    ["", false],
  ])("%j is taken: %s", (text, valid) => {
    expect(readTrace(text, undefined).traceparent).toBe(valid ? text : "");
  });

  it.each([
    ["a=1,b@t=2", true],
    ["", true],
    ["a=1,a=2", false],
    ["=1", false],
    ["a", false],
    [Array.from({ length: 33 }, (_, at) => `k${at}=1`).join(), false],
  ])("state %j is taken: %s", (state, valid) => {
    expect(readTrace(parent, state).tracestate).toBe(valid ? state : "");
  });

  it("has no state without a parent", () => expect(readTrace("bad", "a=1").tracestate).toBe(""));

  it("has a binary form", () => {
    expect(readBinaryTrace(binaryTrace(parent)!.toString("latin1")).traceparent).toBe(parent);
    expect(readBinaryTrace("short").traceparent).toBe("");
  });
});
