/**
 * Makes spans. A valid parent decides by its sampled flag, roots by the rate. Three ways to be: off (no Tracer at all),
 * passing on (neither rate nor exporter: the caller's context goes on unchanged), and recording.
 */
import type { Clock } from "../../../mesh/index.ts";
import { RandomHex } from "../../lib/random-hex.ts";
import { Span, type SpanKind, type SpanSink } from "./span.ts";
import { validTraceparent, validTracestate, zeroTraceparent } from "./trace-context.ts";

export type Tracer = {
  /**
   * A span under the context that came with a call, as headers hold it; an invalid or missing one makes a root. A state
   * counts only beside a valid parent.
   */
  start(name: string, kind: SpanKind, traceparent: string | undefined, tracestate?: string): Span;
  /** A span under one of this sidecar's own. */
  child(name: string, kind: SpanKind, parent: Span): Span;
};

/** Tracing of now: to be read anew for each call, since a changed Configuration exchanges the tracer. */
export type Tracing = {
  /** Undefined when tracing is off. */
  readonly tracer: Tracer | undefined;
};

/** Contexts go through unchanged; what has none gets the all-zero one. */
export function passingTracer(): Tracer {
  const pass = (name: string, kind: SpanKind, traceparent: string, tracestate: string): Span =>
    new Span({
      name,
      kind,
      traceparent,
      tracestate,
      valid: traceparent !== zeroTraceparent,
      parentSpanId: "",
      startMs: 0,
      sink: undefined,
      now: never,
    });
  return {
    start(name, kind, traceparent, tracestate) {
      if (traceparent === undefined || !validTraceparent(traceparent))
        return pass(name, kind, zeroTraceparent, "");
      return pass(name, kind, traceparent, stateOf(tracestate));
    },
    child: (name, kind, parent) => pass(name, kind, parent.traceparent, parent.tracestate),
  };
}

export type RecordingOptions = {
  /** 0 to 1: share of the roots that are sampled. */
  readonly rate: number;
  /** Where sampled spans go; undefined when there is no exporter. */
  readonly sink: SpanSink | undefined;
  readonly clock: Clock;
};

/** Every span has an id of its own; sampled ones go to the sink. */
export function recordingTracer({ rate, sink, clock }: RecordingOptions): Tracer {
  const random = new RandomHex();
  const now = preciseTime(clock);
  const drop: SpanSink = () => {};
  const make = (
    name: string,
    kind: SpanKind,
    ids: { readonly traceId: string; readonly spanId: string; readonly parentSpanId: string },
    tracestate: string,
    sampled: boolean,
  ): Span =>
    new Span({
      name,
      kind,
      traceparent: `00-${ids.traceId}-${ids.spanId}-${sampled ? "01" : "00"}`,
      tracestate,
      valid: true,
      parentSpanId: ids.parentSpanId,
      startMs: sampled ? now() : 0,
      sink: sampled ? (sink ?? drop) : undefined,
      now,
    });
  const under = (name: string, kind: SpanKind, traceparent: string, tracestate: string): Span => {
    const ids = {
      traceId: traceparent.slice(3, 35),
      spanId: random.take(8),
      parentSpanId: traceparent.slice(36, 52),
    };
    return make(name, kind, ids, tracestate, isSampled(traceparent));
  };
  return {
    start(name, kind, traceparent, tracestate) {
      if (traceparent !== undefined && validTraceparent(traceparent))
        return under(name, kind, traceparent, stateOf(tracestate));
      const id = random.take(24);
      const traceId = id.slice(0, 32);
      const ids = { traceId, spanId: id.slice(32), parentSpanId: "" };
      return make(name, kind, ids, "", rate >= 1 || shareOf(traceId) < rate);
    },
    child: (name, kind, parent) => under(name, kind, parent.traceparent, parent.tracestate),
  };
}

function stateOf(tracestate: string | undefined): string {
  return tracestate !== undefined && tracestate !== "" && validTracestate(tracestate) ? tracestate : "";
}

/** Bit 0 of the flags. */
function isSampled(traceparent: string): boolean {
  return (traceparent.charCodeAt(54) & 1) === (traceparent.charCodeAt(54) >= 97 ? 0 : 1);
}

/** Where an id lies between 0 and 1: all sidecars of one rate agree on it. 13 digits are all that a double holds. */
function shareOf(traceId: string): number {
  return Number.parseInt(traceId.slice(16, 29), 16) / 2 ** 52;
}

/** Unix time finer than the wall clock's ms, following it when it is set; that is looked for 20 times a second. */
function preciseTime(clock: Clock): () => number {
  let offsetMs = 0;
  let checkAtMs = Number.NEGATIVE_INFINITY;
  return () => {
    const nowMs = clock.monotonicMs();
    if (nowMs >= checkAtMs) {
      checkAtMs = nowMs + 50;
      const wallMs = clock.nowMs();
      if (Math.abs(nowMs + offsetMs - wallMs) >= 5) offsetMs = wallMs - nowMs;
    }
    return nowMs + offsetMs;
  };
}

function never(): number {
  return 0;
}
