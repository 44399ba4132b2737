import { describe, expect, it } from "vitest";
import { grpcTracePairs, readTraceHeaders, setTrace } from "./headers.ts";
import { passingTracer } from "./tracer.ts";

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const span = passingTracer().start("x", "client", parent, "a=1");

describe("the trace among headers", () => {
  it("takes the place of the caller's, and leaves one line of baggage", () => {
    const headers = ["Baggage", "k=v", "TraceParent", "old", "X", "y", "tracestate", "old", "baggage", "z=1"];
    headers.push("grpc-trace-bin", "old", "traceparent", "older");
    setTrace(headers, span);
    expect(headers).toEqual(["Baggage", "k=v", "X", "y", "traceparent", parent, "tracestate", "a=1"]);
  });

  it("is read back, in both forms", () => {
    const headers = ["A", "b"];
    setTrace(headers, span);
    expect(readTraceHeaders(headers)).toEqual({ traceparent: parent, tracestate: "a=1" });
    expect(readTraceHeaders(grpcTracePairs(span).slice(2))).toEqual({ traceparent: parent, tracestate: "" });
    expect(readTraceHeaders(["A", "b"])).toEqual({});
  });
});
