/**
 * One span: the context that goes on to whoever is called, and, only when it is sampled, what is recorded of it.
 * Spans are made by a Tracer (tracer.ts).
 */

export type SpanKind = "internal" | "server" | "client" | "producer" | "consumer";

export type SpanValue = string | number;

/** Takes finished spans that were sampled. Must not throw. */
export type SpanSink = (span: Span) => void;

export type SpanInit = {
  readonly name: string;
  readonly kind: SpanKind;
  readonly traceparent: string;
  readonly tracestate: string;
  /** False for the all-zero context that stands for none. */
  readonly valid: boolean;
  /** Hex; empty for a root. */
  readonly parentSpanId: string;
  /** Unix ms with fractions. */
  readonly startMs: number;
  /** Undefined when the span is not sampled. */
  readonly sink: SpanSink | undefined;
  /** Unix ms with fractions. */
  readonly now: () => number;
};

const noAttributes: SpanValue[] = [];

export class Span {
  /** May change until the end: what a request means is known after its route. */
  name: string;
  readonly kind: SpanKind;
  /** For the next hop. */
  readonly traceparent: string;
  readonly tracestate: string;
  readonly valid: boolean;
  readonly parentSpanId: string;
  readonly startMs: number;
  endMs = 0;
  /** Flat: key, value, key, value. */
  readonly attributes: SpanValue[];
  /** Text of the error status; undefined when the span did not fail. */
  error: string | undefined;
  readonly #now: () => number;
  #sink: SpanSink | undefined;

  constructor(init: SpanInit) {
    this.name = init.name;
    this.kind = init.kind;
    this.traceparent = init.traceparent;
    this.tracestate = init.tracestate;
    this.valid = init.valid;
    this.parentSpanId = init.parentSpanId;
    this.startMs = init.startMs;
    this.#sink = init.sink;
    this.#now = init.now;
    this.attributes = init.sink === undefined ? noAttributes : [];
  }

  get traceId(): string {
    return this.traceparent.slice(3, 35);
  }

  get spanId(): string {
    return this.traceparent.slice(36, 52);
  }

  /** Whether attributes are of use; ask before making costly ones. */
  get recording(): boolean {
    return this.#sink !== undefined;
  }

  set(key: string, value: SpanValue): void {
    if (this.#sink !== undefined) this.attributes.push(key, value);
  }

  /** Marks the span as failed. */
  fail(text: string): void {
    if (this.#sink !== undefined) this.error = text;
  }

  /** Hands the span over when it is sampled; later calls do nothing. */
  end(): void {
    const sink = this.#sink;
    if (sink === undefined) return;
    this.#sink = undefined;
    this.endMs = this.#now();
    sink(this);
  }
}
