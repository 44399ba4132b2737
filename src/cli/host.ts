/** What every command of the CLI is given. */
import type { Clock } from "../../mesh/index.ts";
import type { Terminal } from "./terminal.ts";

export type CommandHost = {
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly terminal: Terminal;
  /** Sets the exit code of the program; 0 when never called. */
  exit(code: number): void;
};
