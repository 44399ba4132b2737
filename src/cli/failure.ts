/** What ends a command: the text for the user and the exit code. */
export { textOf } from "../lib/thrown.ts";

/** Exit codes, as of the Dapr CLI. */
export const exitCodes = { ok: 0, failure: 1, usage: 255 } as const;

/** Thrown by commands for what the user can mend; `message` is shown as it is. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;

  constructor(message: string, exitCode: number = exitCodes.failure, options: { cause?: unknown } = {}) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
