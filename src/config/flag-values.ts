/**
 * Reads single flag values that need more than their type: ports, sizes, words of a closed list.
 * Every fault is a SettingError with daprd's words, and the fix where those do not give it.
 */
import { goQuote } from "../lib/go-quote.ts";
import { didYouMean } from "../lib/nearest.ts";
import { parseQuantityBytes, QuantityError } from "../lib/quantity.ts";
import type { FlagName } from "./flag-table.ts";
import type { Flags } from "./flags.ts";
import { SettingError } from "./setting-error.ts";

export type PortFlag =
  | "app-port"
  | "dapr-http-port"
  | "dapr-grpc-port"
  | "dapr-internal-grpc-port"
  | "dapr-public-port"
  | "metrics-port"
  | "nats-port"
  | "profile-port";
/** daprd names these with the word flag. */
const NAMED_AS_FLAG: ReadonlySet<string> = new Set(["dapr-http-port", "dapr-grpc-port", "profile-port"]);

/** A port from 0 to 65535; 0 lets the system choose. */
export function readPort({ values }: Flags, name: PortFlag): number {
  const text = values[name];
  const label = NAMED_AS_FLAG.has(name) ? `${name} flag` : name;
  if (!/^[+-]?[0-9]+$/.test(text)) {
    throw new SettingError(`error parsing ${label}: strconv.Atoi: parsing ${goQuote(text)}: invalid syntax`);
  }
  const value = Number(text);
  if (value >= 0 && value <= 65_535) return value;
  throw new SettingError(`error parsing ${label}: ${text} is not a port, use 1 to 65535`);
}

/** Like `readPort`, undefined when the flag is empty. */
export function readOptionalPort(
  flags: Flags,
  name: "dapr-public-port" | "dapr-internal-grpc-port",
): number | undefined {
  return flags.values[name] === "" ? undefined : readPort(flags, name);
}

/** The one of `allowed` that `text` is. */
export function readWord<T extends string>(name: FlagName, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found !== undefined) return found;
  const hint = didYouMean(text, allowed);
  throw new SettingError(`invalid value for '${name}': ${text}${hint} (one of: ${allowed.join(", ")})`);
}

/** Bytes of the newer flag, or of its deprecated form when only that was given; -1 asks for the default. */
export function readSize(
  { values, given }: Flags,
  name: "max-body-size" | "read-buffer-size",
  old: "dapr-http-max-request-size" | "dapr-http-read-buffer-size",
  oldUnitBytes: number,
  warnings: string[],
): number {
  if (given.has(old)) warnings.push(`The '${old}' flag is deprecated; use '${name}' instead`);
  if (given.has(old) && !given.has(name))
    return checkSize(old, values[old] < 0 ? values[old] : values[old] * oldUnitBytes);
  try {
    return checkSize(name, parseQuantityBytes(values[name]));
  } catch (error) {
    if (!(error instanceof QuantityError)) throw error;
    throw new SettingError(`error parsing ${name}: ${error.message} (write for example 512Ki or 16Mi)`);
  }
}

function checkSize(name: FlagName, bytes: number): number {
  if (bytes >= -1) return bytes;
  throw new SettingError(`error parsing ${name}: a size cannot be negative (-1 means the default)`);
}
