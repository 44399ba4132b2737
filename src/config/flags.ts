/**
 * Reads the command line as daprd does (`--flag=value`, `--flag value`, `-flag`; booleans only with `=`) into one
 * typed value per flag. Pure: what to print and how to exit is in the outcome.
 */
import { DurationError, formatGoDuration, parseGoDuration } from "../lib/duration.ts";
import { goQuote } from "../lib/go-quote.ts";
import { nearest } from "../lib/nearest.ts";
import { FLAG_GROUPS, type FlagName, type FlagRow, type FlagValues } from "./flag-table.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface BuildInfo {
  readonly version: string;
  readonly commit: string;
}

export interface Flags {
  readonly values: FlagValues;
  /** Flags that stood on the command line. */
  readonly given: ReadonlySet<FlagName>;
}

/**
 * What the command line asks for: run a sidecar, print something and exit, or wait for another sidecar on this
 * machine to be ready for outbound calls (and exit with 0 also when it is not in time).
 */
export type FlagOutcome =
  | { readonly kind: "run"; readonly flags: Flags }
  | { readonly kind: "wait"; readonly httpPort: string }
  | {
      readonly kind: "print";
      readonly text: string;
      readonly exitCode: 0 | 2;
      readonly stream: "stdout" | "stderr";
    };

const ROWS: readonly FlagRow[] = FLAG_GROUPS.flatMap((group): readonly FlagRow[] => group.flags);
const BY_NAME: ReadonlyMap<string, FlagRow> = new Map(ROWS.map((row) => [row.name, row]));
const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);

class FlagError extends Error {}

type FlagValue = FlagRow["fallback"];

/**
 * Reads the arguments after the program's name. `env` stands in for the flags that name a variable.
 * A wrong command line gives the usage text, then the fault, and exit code 2.
 */
export function parseFlags(argv: readonly string[], env: Environment, build: BuildInfo): FlagOutcome {
  let flags: Flags | "help";
  try {
    flags = readArguments(argv, env);
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    return { kind: "print", text: `${usage()}\n${error.message}\n`, exitCode: 2, stream: "stderr" };
  }
  if (flags === "help") return print(usage());
  if (flags.values.version) return print(`${build.version}\n`);
  if (flags.values["build-info"]) {
    return print(`Version: ${build.version}\nGit Commit: ${build.commit}\nGit Version: ${build.version}\n`);
  }
  if (flags.values.wait) return { kind: "wait", httpPort: flags.values["dapr-http-port"] };
  return { kind: "run", flags };
}

function print(text: string): FlagOutcome {
  return { kind: "print", text, exitCode: 0, stream: "stdout" };
}

function readArguments(argv: readonly string[], env: Environment): Flags | "help" {
  const values = new Map<string, FlagValue>();
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? "";
    if (argument === "--") break;
    // A lone dash and everything without one are positional, which daprd ignores.
    if (!argument.startsWith("-") || argument === "-") continue;
    const { name, inline } = splitArgument(argument);
    const row = BY_NAME.get(name);
    if (row === undefined) {
      if (name === "help" || name === "h") return "help";
      throw unknownFlag(name);
    }
    let text = inline;
    if (text === undefined && row.kind === "bool") text = "true";
    if (text === undefined) {
      text = argv[++i];
      if (text === undefined) throw new FlagError(`flag needs an argument: --${name}`);
    }
    values.set(name, readValue(row, text, values.get(name)));
  }
  const given = new Set([...values.keys()]) as ReadonlySet<FlagName>;
  for (const row of ROWS) {
    if (!values.has(row.name)) values.set(row.name, (row.env && env[row.env]) || row.fallback);
  }
  return Object.freeze({ values: Object.freeze(Object.fromEntries(values)) as FlagValues, given });
}

function splitArgument(argument: string): { name: string; inline: string | undefined } {
  const body = argument.startsWith("--") ? argument.slice(2) : argument.slice(1);
  const equals = body.indexOf("=");
  const name = equals < 0 ? body : body.slice(0, equals);
  if (name === "" || name.startsWith("-")) throw new FlagError(`bad flag syntax: ${argument}`);
  return { name, inline: equals < 0 ? undefined : body.slice(equals + 1) };
}

function unknownFlag(name: string): FlagError {
  const known = nearest(name, BY_NAME.keys());
  const hint = known === undefined ? "" : `\ndid you mean --${known}?`;
  return new FlagError(`unknown flag: --${name}${hint}`);
}

function readValue(row: FlagRow, text: string, earlier: FlagValue | undefined): FlagValue {
  const invalid = (reason: string): FlagError =>
    new FlagError(`invalid argument ${goQuote(text)} for "--${row.name}" flag: ${reason}`);
  switch (row.kind) {
    case "string":
      return text;
    case "bool":
      if (TRUE.has(text)) return true;
      if (FALSE.has(text)) return false;
      throw invalid(`strconv.ParseBool: parsing ${goQuote(text)}: invalid syntax`);
    case "int":
      return readInteger(text, invalid);
    case "duration":
      try {
        return parseGoDuration(text);
      } catch (error) {
        throw error instanceof DurationError ? invalid(error.message) : error;
      }
    case "list": {
      const items = readList(text);
      if (items === undefined) throw invalid('close the quotes, or write "" for a quote inside them');
      return [...(Array.isArray(earlier) ? (earlier as string[]) : []), ...items];
    }
  }
}

/** Go's integers: decimal, 0x, 0o or leading 0, 0b, with `_` between digits. */
function readInteger(text: string, invalid: (reason: string) => FlagError): number {
  const shape =
    /^([-+]?)(0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)$/.exec(text);
  if (shape === null) throw invalid(`strconv.ParseInt: parsing ${goQuote(text)}: invalid syntax`);
  const digits = (shape[2] ?? "").replaceAll("_", "").replace(/^0(?=[0-7])/, "0o");
  const value = Number(digits) * (shape[1] === "-" ? -1 : 1);
  if (!Number.isSafeInteger(value)) {
    throw invalid(`strconv.ParseInt: parsing ${goQuote(text)}: value out of range`);
  }
  return value;
}

/** Comma separated values, quoted where a value holds a comma; undefined when the quotes do not match. */
function readList(text: string): string[] | undefined {
  const items: string[] = [];
  if (text === "") return items;
  const field = /(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/y;
  for (let more = true; more;) {
    const match = field.exec(text);
    if (match === null) return undefined;
    items.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? "");
    more = match[3] === ",";
  }
  return items;
}

/** The text of `--help`, made from the table. */
export function usage(): string {
  const lines = ["Usage: weftd --app-id <name> [flags]"];
  for (const group of FLAG_GROUPS) {
    lines.push("", `${group.title}:`);
    for (const row of group.flags as readonly FlagRow[]) lines.push(describe(row));
  }
  return `${lines.join("\n")}\n`;
}

function describe(row: FlagRow): string {
  const type = row.kind === "bool" ? "" : ` ${row.kind}`;
  const fallback = describeFallback(row);
  const notes = [
    ...(fallback === undefined ? [] : [`default ${fallback}`]),
    ...(row.env === undefined ? [] : [`or $${row.env}`]),
  ];
  return `  --${row.name}${type}`.padEnd(45) + row.about + (notes.length > 0 ? ` (${notes.join(", ")})` : "");
}

function describeFallback(row: FlagRow): string | undefined {
  const { fallback } = row;
  if (fallback === "" || fallback === false || Array.isArray(fallback)) return undefined;
  if (row.kind !== "duration") return String(fallback);
  return fallback === 0 ? undefined : formatGoDuration(Number(fallback));
}
