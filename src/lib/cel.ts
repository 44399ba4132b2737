/**
 * The one door to CEL. An expression is parsed and checked once, then run against values any number of times. Errors
 * are one short line: the library's own text draws the expression, and a context may hold a user's whole event.
 * Costs 20 to 70 ms to load, so import it only where there is an expression.
 */
import { Environment } from "@marcbachmann/cel-js";

/** Types of variables: `int` takes bigint values, `dyn` whatever JSON can hold. */
export type CelType = "int" | "double" | "string" | "bool" | "dyn";

export type CelExpression = {
  /** Type of the result as far as it is known before running, such as `bool`, `dyn`, `list<int>`. */
  readonly type: string;
  /** Why the expression cannot succeed with any values: unknown variable, operator for other types. */
  readonly fault: string | undefined;
  /** The value. Numbers of JSON are doubles, literals without a point int. @throws {CelError} */
  run(values: Readonly<Record<string, unknown>>): unknown;
};

/** An expression that cannot be read or run. */
export class CelError extends Error {
  override readonly name = "CelError";
}

/** Longest expression, characters; what an expression costs is bounded by its size and that of its values. */
const maxLength = 16 * 1024;
const maxErrorLength = 200;
const limits = { maxAstNodes: 4_000, maxDepth: 100, maxListElements: 1_000, maxMapEntries: 1_000 };

/** Standard functions that the library lacks. */
function addMissing(environment: Environment): void {
  const bytes = (a: Uint8Array, b: Uint8Array): number => Buffer.compare(a, b);
  environment
    // Without flags, as the library's own `text.matches(pattern)`.
    .registerFunction("matches(string, string): bool", (text: string, pattern: string) =>
      new RegExp(pattern).test(text),
    )
    .registerFunction("int(uint): int", (value: { valueOf(): bigint }) => value.valueOf())
    .registerFunction("int(google.protobuf.Timestamp): int", (time: Date) =>
      BigInt(Math.floor(time.getTime() / 1000)),
    )
    .registerFunction("string(google.protobuf.Timestamp): string", (time: Date) =>
      time.toISOString().replace(/\.?0*Z$/, "Z"),
    )
    .registerFunction("string(google.protobuf.Duration): string", String)
    .registerOperator("bytes < bytes", (a: Uint8Array, b: Uint8Array) => bytes(a, b) < 0)
    .registerOperator("bytes <= bytes", (a: Uint8Array, b: Uint8Array) => bytes(a, b) <= 0)
    .registerOperator("bytes > bytes", (a: Uint8Array, b: Uint8Array) => bytes(a, b) > 0)
    .registerOperator("bytes >= bytes", (a: Uint8Array, b: Uint8Array) => bytes(a, b) >= 0);
}

/** Makes a compiler for expressions over these variables; no others are known to them. */
export function celCompiler(variables: Readonly<Record<string, CelType>>): (text: string) => CelExpression {
  const environment = new Environment({ limits, homogeneousAggregateLiterals: false });
  addMissing(environment);
  for (const [name, type] of Object.entries(variables)) environment.registerVariable(name, type);
  return (text) => compile(environment, text);
}

/** @throws {CelError} for a text that is no expression. */
function compile(environment: Environment, text: string): CelExpression {
  if (text.length > maxLength) throw new CelError(`the expression is longer than ${maxLength} characters`);
  let parsed: ReturnType<Environment["parse"]>;
  try {
    parsed = environment.parse(text);
  } catch (error) {
    throw celError(error);
  }
  const checked = parsed.check();
  return {
    type: checked.type ?? "dyn",
    fault: checked.error === undefined ? undefined : celError(checked.error).message,
    run(values) {
      try {
        return parsed(values);
      } catch (error) {
        throw celError(error);
      }
    },
  };
}

/** The library's summary and where it applies; never its cause, which may hold values. */
function celError(thrown: unknown): CelError {
  const { summary, range, message } = thrown as {
    readonly summary?: string;
    readonly range?: { readonly start: number };
    readonly message?: string;
  };
  const line = (summary ?? message ?? String(thrown)).split("\n", 1)[0]!;
  // Two of its summaries end with the value itself, one quotes it.
  const bare = line.replace(/^(Invalid [\w ]+): .*/, "$1").replace(/"[^"]*"/g, '"…"');
  return celErrorAt(bare, range);
}

function celErrorAt(line: string, range: { readonly start: number } | undefined): CelError {
  const text = line.length > maxErrorLength ? `${line.slice(0, maxErrorLength)}…` : line;
  return new CelError(range === undefined ? text : `${text} (at character ${range.start + 1})`);
}
