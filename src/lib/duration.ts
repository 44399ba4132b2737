/**
 * Durations as Dapr's files, flags and APIs write them: Go form (`1h30m`, `300ms`), ISO 8601 with optional
 * repetitions (`R5/PT30S`), and the mixed forms "Go duration or a plain integer".
 */

const NS_PER_UNIT: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["\u00b5s", 1_000n], // micro sign
  ["\u03bcs", 1_000n], // Greek mu
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n],
]);
const NS_PER_MS = 1_000_000n;
const MAX_NS = 2n ** 63n - 1n;
const MAX_DIGITS = 30;
const INTEGER = /^[-+]?[0-9]+$/;
const ISO =
  /^(?:R(\d+)\/)?P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$/;

/** A text that is not a duration. For the Go form the message is Go's own. */
export class DurationError extends Error {
  override readonly name = "DurationError";
}

/**
 * A duration with calendar parts, which have no fixed length: add years and months to a date first, then days,
 * then `timeMs`. `repetitions` is undefined when the text has no `Rn/`.
 */
export interface CalendarDuration {
  readonly years: number;
  readonly months: number;
  readonly days: number;
  readonly timeMs: number;
  readonly repetitions: number | undefined;
}

/**
 * Parses Go's form: an optional sign and one or more numbers with the units ns, us, ms, s, m, h; `0` alone is
 * allowed. Returns milliseconds, with a fraction below one millisecond.
 * @throws {DurationError} with the text of Go's time.ParseDuration.
 */
export function parseGoDuration(text: string): number {
  const ns = parseNanoseconds(text);
  return Number(ns / NS_PER_MS) + Number(ns % NS_PER_MS) / 1e6;
}

function parseNanoseconds(text: string): bigint {
  const invalid = (): DurationError => new DurationError(`time: invalid duration ${quote(text)}`);
  const negative = text.startsWith("-");
  const body = negative || text.startsWith("+") ? text.slice(1) : text;
  if (body === "0") return 0n;
  if (body === "") throw invalid();
  // As Go reads it: the unit is everything up to the next digit or point.
  const part = /([0-9]*)\.?([0-9]*)([^0-9.]*)/y;
  let total = 0n;
  while (part.lastIndex < body.length) {
    const [, whole = "", fraction = "", unit = ""] = part.exec(body) ?? [];
    if ((whole === "" && fraction === "") || whole.length > MAX_DIGITS) throw invalid();
    if (unit === "") throw new DurationError(`time: missing unit in duration ${quote(text)}`);
    const scale = NS_PER_UNIT.get(unit);
    if (scale === undefined) {
      throw new DurationError(`time: unknown unit ${quote(unit)} in duration ${quote(text)}`);
    }
    const kept = fraction.slice(0, MAX_DIGITS);
    total += BigInt(whole) * scale + (BigInt(kept) * scale) / 10n ** BigInt(kept.length);
    if (total > MAX_NS + (negative ? 1n : 0n)) throw invalid();
  }
  return negative ? -total : total;
}

/** Go's time package quotes byte by byte: everything outside printable ASCII is `\xNN`. */
function quote(text: string): string {
  let out = "";
  for (const byte of Buffer.from(text)) {
    const char = String.fromCharCode(byte);
    if (byte < 0x20 || byte >= 0x7f) out += `\\x${byte.toString(16).padStart(2, "0")}`;
    else out += char === '"' || char === "\\" ? `\\${char}` : char;
  }
  return `"${out}"`;
}

/** Writes milliseconds as Go prints a Duration: `1h30m0s`, `1.5s`, `300ms`, `0s`, `-5s`. */
export function formatGoDuration(durationMs: number): string {
  const wholeMs = Math.trunc(durationMs);
  const ns = BigInt(wholeMs) * NS_PER_MS + BigInt(Math.round((durationMs - wholeMs) * 1e6));
  return ns < 0n ? `-${formatNanoseconds(-ns)}` : formatNanoseconds(ns);
}

function formatNanoseconds(ns: bigint): string {
  if (ns === 0n) return "0s";
  if (ns < 1_000n) return `${ns}ns`;
  if (ns < NS_PER_MS) return `${decimal(ns, 1_000n)}\u00b5s`;
  if (ns < 1_000_000_000n) return `${decimal(ns, NS_PER_MS)}ms`;
  const minutes = ns / 60_000_000_000n;
  const seconds = `${decimal(ns % 60_000_000_000n, 1_000_000_000n)}s`;
  if (minutes === 0n) return seconds;
  const hours = minutes / 60n;
  return hours === 0n ? `${minutes}m${seconds}` : `${hours}h${minutes % 60n}m${seconds}`;
}

/** `value / unit` in decimal without trailing zeros; `unit` is a power of ten. */
function decimal(value: bigint, unit: bigint): string {
  const places = unit.toString().length - 1;
  const fraction = (value % unit).toString().padStart(places, "0").replace(/0+$/, "");
  return fraction === "" ? `${value / unit}` : `${value / unit}.${fraction}`;
}

/**
 * Parses ISO 8601 in the form Dapr takes: `[Rn/]PnYnMnWnDTnHnMnS`, whole numbers only, a week is seven days.
 * @throws {DurationError} when the text has another form or no part at all.
 */
export function parseIsoDuration(text: string): CalendarDuration {
  const match = ISO.exec(text);
  const parts = match?.slice(2);
  if (parts === undefined || text.endsWith("T") || parts.every((part) => part === undefined)) {
    throw new DurationError(
      `unsupported ISO8601 duration format ${JSON.stringify(text)}, write for example PT30S or R5/P1DT12H`,
    );
  }
  const [years = 0, months = 0, weeks = 0, days = 0, hours = 0, minutes = 0, seconds = 0] = parts.map(
    (part) => (part === undefined ? 0 : Number(part)),
  );
  return {
    years,
    months,
    days: weeks * 7 + days,
    timeMs: ((hours * 60 + minutes) * 60 + seconds) * 1000,
    repetitions: match?.[1] === undefined ? undefined : Number(match[1]),
  };
}

/**
 * Parses either form: ISO 8601 when the text starts with `P` or `R`, else Go.
 * @throws {DurationError} when it is neither.
 */
export function parseDuration(text: string): CalendarDuration {
  if (text.startsWith("P") || text.startsWith("R")) return parseIsoDuration(text);
  return { years: 0, months: 0, days: 0, timeMs: parseGoDuration(text), repetitions: undefined };
}

/**
 * Parses "Go duration or integer seconds" (component metadata, ttlInSeconds) into milliseconds.
 * @throws {DurationError} when it is neither.
 */
export function parseDurationOrSeconds(text: string): number {
  return INTEGER.test(text) ? Number(text) * 1000 : parseGoDuration(text);
}

/**
 * Parses "Go duration or integer milliseconds" (resiliency policies, Redis metadata) into milliseconds.
 * @throws {DurationError} when it is neither.
 */
export function parseDurationOrMilliseconds(text: string): number {
  return INTEGER.test(text) ? Number(text) : parseGoDuration(text);
}

/**
 * Parses a comma list of "Go duration or integer seconds" into milliseconds, none of them negative.
 * @throws {DurationError} when it is none.
 */
export function parseDurationList(text: string): number[] {
  const list = text.split(",").map((item) => parseDurationOrSeconds(item.trim()));
  if (list.some((timeMs) => timeMs < 0)) throw new DurationError("a duration cannot be negative");
  return list;
}
