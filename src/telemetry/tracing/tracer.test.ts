import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import type { Span } from "./span.ts";
import { zeroTraceparent } from "./trace-context.ts";
import { passingTracer, recordingTracer } from "./tracer.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const parentId = "b7ad6b7169203331";
const parent = (flags: string, version = "00"): string => `${version}-${traceId}-${parentId}-${flags}`;

function recorder(rate: number): { ended: Span[]; tracer: ReturnType<typeof recordingTracer> } {
  const ended: Span[] = [];
  return {
    ended,
    tracer: recordingTracer({ rate, sink: (span) => void ended.push(span), clock: manualClock() }),
  };
}

describe("a tracer that passes on", () => {
  it("changes nothing of a valid context", () => {
    const span = passingTracer().start("x", "client", parent("00"), "a=1");
    expect(span).toMatchObject({
      traceparent: parent("00"),
      tracestate: "a=1",
      valid: true,
      recording: false,
    });
    expect(passingTracer().child("y", "producer", span).traceparent).toBe(parent("00"));
  });

  it.each([undefined, "", "bad", zeroTraceparent])("makes the zero context of %j", (given) => {
    const span = passingTracer().start("x", "client", given, "a=1");
    expect(span).toMatchObject({ traceparent: zeroTraceparent, tracestate: "", valid: false });
  });
});

describe("a tracer that records", () => {
  it.each([
    ["01", "01", 1],
    ["03", "01", 1],
    ["0b", "01", 1],
    ["00", "00", 0],
    ["0a", "00", 0],
  ])("obeys the flags %s of a parent, whatever the rate", (flags, sent, count) => {
    for (const rate of [0, 1]) {
      const { ended, tracer } = recorder(rate);
      const span = tracer.start("x", "server", parent(flags), "a=1");
      span.set("k", "v");
      span.end();
      span.end();
      expect(span.traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-${sent}$`));
      expect(span.spanId).not.toBe(parentId);
      expect(span).toMatchObject({ parentSpanId: parentId, tracestate: "a=1" });
      expect(ended.map((each) => each.attributes)).toEqual(count === 1 ? [["k", "v"]] : []);
    }
  });

  it("sends contexts of later versions on as its own", () => {
    expect(recorder(1).tracer.start("x", "client", parent("01", "42")).traceparent).toMatch(/^00-.*-01$/);
  });

  it("samples roots by its rate, and all sidecars of one rate alike", () => {
    const { tracer } = recorder(0.25);
    const roots = Array.from({ length: 20_000 }, () => tracer.start("x", "client", undefined));
    const sampled = roots.filter((span) => span.traceparent.endsWith("01"));
    expect(sampled.length / roots.length).toBeGreaterThan(0.22);
    expect(sampled.length / roots.length).toBeLessThan(0.28);
    expect(new Set(roots.map((span) => span.traceId)).size).toBe(roots.length);
    for (const span of sampled) expect(Number.parseInt(span.traceId.slice(16, 18), 16)).toBeLessThan(64);
  });

  it("makes children of its own spans", () => {
    const { tracer } = recorder(1);
    const root = tracer.start("x", "client", undefined);
    const child = tracer.child("y", "producer", root);
    expect(child).toMatchObject({ traceId: root.traceId, parentSpanId: root.spanId, recording: true });
  });
});
