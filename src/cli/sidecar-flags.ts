/**
 * The sidecar's flags as options of CLI commands: same names, made from the same table, checked by the same code
 * before anything is started.
 */
import { Option, type Command } from "commander";
import { FLAG_GROUPS, type FlagName, type FlagRow } from "../config/flag-table.ts";
import { parseFlags, type Environment } from "../config/flags.ts";
import { resolveOptions, type SidecarOptions } from "../config/options.ts";
import { SettingError } from "../config/setting-error.ts";
import { CliError, exitCodes } from "./failure.ts";

const rows: readonly FlagRow[] = FLAG_GROUPS.flatMap((group): readonly FlagRow[] => group.flags);
const notForRun: ReadonlySet<string> = new Set(["version", "build-info", "wait"] satisfies FlagName[]);

/** Short forms, as of `dapr run`. */
const shortForms: Readonly<Record<string, string>> = {
  "app-id": "a",
  "app-port": "p",
  "app-protocol": "P",
  "dapr-http-port": "H",
  "dapr-grpc-port": "G",
  "dapr-internal-grpc-port": "I",
  "metrics-port": "M",
  config: "c",
  "resources-path": "d",
  "unix-domain-socket": "u",
} satisfies Partial<Record<FlagName, string>>;

/** Defaults of `weft run` that differ from the sidecar's own, in words. */
const otherDefaults: Readonly<Record<string, string>> = {
  "app-id": "made from the command",
  "dapr-http-port": "a free one",
  "dapr-grpc-port": "a free one",
  "metrics-port": "a free one",
  "dapr-listen-addresses": "127.0.0.1",
  "metrics-listen-address": "127.0.0.1",
  "resources-path": "components in Weft's home",
  config: "config.yaml in Weft's home, if there",
} satisfies Partial<Record<FlagName, string>>;

/** Adds every flag of the sidecar to a command. Values are kept as text, for `givenFlags`. */
export function addSidecarOptions(command: Command): void {
  for (const group of FLAG_GROUPS) {
    const compatible = group.title.startsWith("Taken for compatibility");
    for (const row of group.flags as readonly FlagRow[]) {
      if (!notForRun.has(row.name)) command.addOption(optionOf(row, group.title).hideHelp(compatible));
    }
  }
}

/** Adds the flags that say where NATS is. */
export function addMeshOptions(command: Command): void {
  const group = FLAG_GROUPS.find(({ title }) => title === "The mesh");
  for (const row of (group?.flags ?? []) as readonly FlagRow[]) command.addOption(optionOf(row, "The mesh"));
}

function optionOf(row: FlagRow, group: string): Option {
  const short = shortForms[row.name];
  const value = row.kind === "bool" ? "[true|false]" : `<${row.kind === "list" ? "value" : row.kind}>`;
  const terms = `${short === undefined ? "" : `-${short}, `}--${row.name} ${value}`;
  const notes = [
    ...(otherDefaults[row.name] === undefined ? [] : [`default: ${otherDefaults[row.name]}`]),
    ...(row.env === undefined ? [] : [`environment ${row.env}`]),
  ];
  const about = row.about.replace(" (required)", "");
  const option = new Option(terms, notes.length === 0 ? about : `${about} (${notes.join("; ")})`);
  const collect = (text: string, earlier: readonly string[] = []): string[] => [...earlier, text];
  return option.argParser<readonly string[]>(collect).helpGroup(`${group}:`);
}

/** What the user gave, by flag name; a flag may have several texts. */
export type GivenFlags = ReadonlyMap<string, readonly string[]>;

export function givenFlags(command: Command): GivenFlags {
  const given = new Map<string, readonly string[]>();
  for (const option of command.options) {
    const texts: unknown = command.getOptionValue(option.attributeName());
    if (Array.isArray(texts)) given.set(option.name(), texts.map(String));
  }
  return given;
}

/** The arguments that give the sidecar these flags. */
export function flagArguments(flags: GivenFlags): string[] {
  return [...flags].flatMap(([name, texts]) => texts.map((text) => `--${name}=${text}`));
}

/** Checks flags as the sidecar will. Throws CliError with its words. */
export function checkFlags(args: readonly string[], env: Environment): SidecarOptions {
  const outcome = parseFlags(args, env, { version: "", commit: "" });
  // The text is the usage and then the fault; here the fault alone says enough.
  if (outcome.kind !== "run")
    throw usage(outcome.kind === "print" ? lastLine(outcome.text) : "nothing to run");
  try {
    return resolveOptions(outcome.flags, env);
  } catch (error) {
    throw error instanceof SettingError ? usage(error.message) : error;
  }
}

function usage(message: string): CliError {
  return new CliError(message, exitCodes.usage);
}

function lastLine(text: string): string {
  return text.trimEnd().split("\n").at(-1) ?? "";
}

/**
 * Writes `--flag` of a yes-or-no flag as `--flag=true`: such flags take a value only with `=`, while the parser of
 * the command line would take the next word. Ends at `--` and at the first word that belongs to no flag.
 */
export function spellOutBooleans(argv: readonly string[]): string[] {
  const spelled: string[] = [];
  let i = 0;
  for (; i < argv.length; i++) {
    const argument = argv[i] ?? "";
    if (argument === "--" || !argument.startsWith("-")) break;
    const kind = kindOf(argument);
    spelled.push(kind === "bool" ? `${argument}=true` : argument);
    const value = argv[i + 1];
    if (kind === "value" && value !== undefined) {
      spelled.push(value);
      i++;
    }
  }
  return [...spelled, ...argv.slice(i)];
}

/** Whether the flag needs a value from the next argument. */
function kindOf(argument: string): "bool" | "value" | "complete" {
  if (!argument.startsWith("--"))
    return /^-[A-Za-z]$/.test(argument) && argument !== "-h" ? "value" : "complete";
  const row = rows.find(({ name }) => `--${name}` === argument);
  if (row === undefined) return "complete";
  return row.kind === "bool" ? "bool" : "value";
}
