/**
 * What ends the start: a flag value, file or resource that the sidecar cannot run with.
 */

/** `message` is what stands after `Fatal error from runtime: ` in the log; the process then exits with 1. */
export class SettingError extends Error {
  override readonly name = "SettingError";
}
