/**
 * What is wrong in a file, with its place. Problems are collected and logged; only a SettingError ends the start.
 */

export interface Origin {
  readonly file: string;
  /** Counted from one. */
  readonly line: number;
  readonly column: number;
}

export interface Problem extends Origin {
  /** `error`: the document was skipped. `warning`: it is used as far as it could be read. */
  readonly severity: "error" | "warning";
  /** One line that names the fault and the fix. */
  readonly message: string;
}

/** `components/pubsub.yaml:7`. */
export function formatPlace({ file, line }: Origin): string {
  return `${file}:${line}`;
}

/** One line for the log: `components/pubsub.yaml:7:11: spec.type is missing, ...`. */
export function formatProblem(problem: Problem): string {
  return `${problem.file}:${problem.line}:${problem.column}: ${problem.message}`;
}
