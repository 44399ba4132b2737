/**
 * The W3C trace context in the three forms in which it travels: headers, gRPC's binary header, attributes of events.
 */

/** Both texts are empty when the caller sent nothing valid. */
export type TraceContext = { readonly traceparent: string; readonly tracestate: string };

export const noTrace: TraceContext = Object.freeze({ traceparent: "", tracestate: "" });

/** The header that is sent in place of an invalid or empty one. */
export const zeroTraceparent = `00-${"0".repeat(32)}-${"0".repeat(16)}-00`;

const parentForm = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:$|-)/;
const stateKey = /^(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})$/;
const stateValue = /^[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;
const maxStateMembers = 32;

/** True for a `traceparent` that a trace can be continued from. */
export function validTraceparent(text: string): boolean {
  return parentForm.test(text) && (text.length === 55 || !text.startsWith("00"));
}

/** Context of two headers. A state counts only beside a valid parent. */
export function readTrace(traceparent: string | undefined, tracestate: string | undefined): TraceContext {
  if (traceparent === undefined || !validTraceparent(traceparent)) return noTrace;
  const state = tracestate !== undefined && validTracestate(tracestate) ? tracestate : "";
  return { traceparent, tracestate: state };
}

/** Context of gRPC's `grpc-trace-bin`: version 0, then fields 0 (trace id), 1 (span id), 2 (flags). */
export function readBinaryTrace(latin1: string): TraceContext {
  const bytes = Buffer.from(latin1, "latin1");
  if (bytes.length < 29 || bytes[0] !== 0 || bytes[1] !== 0 || bytes[18] !== 1 || bytes[27] !== 2)
    return noTrace;
  const trace = bytes.toString("hex", 2, 18);
  const span = bytes.toString("hex", 19, 27);
  return readTrace(`00-${trace}-${span}-${bytes.toString("hex", 28, 29)}`, undefined);
}

/** The same context in the binary form; undefined for an invalid parent. */
export function binaryTrace(traceparent: string): Buffer | undefined {
  const [, trace, span, flags] = traceparent.split("-");
  if (trace?.length !== 32 || span?.length !== 16 || flags?.length !== 2) return undefined;
  return Buffer.from(`0000${trace}01${span}02${flags}`, "hex");
}

/** True for a `tracestate` that may go on. */
export function validTracestate(text: string): boolean {
  const members = text.split(",");
  if (members.length > maxStateMembers) return false;
  const seen = new Set<string>();
  for (const raw of members) {
    const member = raw.trim();
    if (member === "") continue;
    const equals = member.indexOf("=");
    const key = member.slice(0, Math.max(equals, 0));
    if (!stateKey.test(key) || !stateValue.test(member.slice(equals + 1)) || seen.has(key)) return false;
    seen.add(key);
  }
  return true;
}
