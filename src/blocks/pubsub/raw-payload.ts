/**
 * The `rawPayload` switch of a request or a subscription, with the spellings Go's ParseBool takes.
 */

const yes: ReadonlySet<string> = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const no: ReadonlySet<string> = new Set(["", "0", "f", "F", "FALSE", "false", "False"]);

/** Value of `rawPayload` (exact case); absent and empty are false, undefined is no boolean at all. */
export function readRawPayload(metadata: Readonly<Record<string, string>>): boolean | undefined {
  const value = metadata["rawPayload"];
  if (value === undefined || no.has(value)) return false;
  return yes.has(value) ? true : undefined;
}
