/** A log that keeps nothing. */
import type { Log } from "../../src/telemetry/log.ts";

const nothing = (): void => {};

export const silentLog: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  fatal: nothing,
  always: nothing,
  scope: () => silentLog,
};
