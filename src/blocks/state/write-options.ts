/** What every write may ask for, as the client wrote it. */
import type { Metadata, WriteItem } from "./state.ts";

/** Throws for words that are none of these options. */
export function checkOptions({ concurrency, consistency }: WriteItem): void {
  if (concurrency !== "" && concurrency !== "first-write" && concurrency !== "last-write") {
    throw new Error(`unrecognized concurrency model '${concurrency}'`);
  }
  if (consistency !== "" && consistency !== "strong" && consistency !== "eventual") {
    throw new Error(`unrecognized consistency model '${consistency}'`);
  }
}

/** Undefined when it is not given. Throws for what is no whole number. */
export function ttlSeconds(metadata: Metadata): number | undefined {
  const text = metadata["ttlInSeconds"];
  if (text === undefined || text === "") return undefined;
  const seconds = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(seconds)) {
    throw new Error(
      `incorrect value for metadata 'ttlInSeconds': '${text}' is not a whole number of seconds`,
    );
  }
  return seconds;
}
