/** The one error of this folder: no usable NATS could be found or started, with all that was tried. */

/**
 * Thrown by everything here that fails for a reason the user can mend; `message` is one readable line with
 * the fix.
 */
export class FindNatsError extends Error {
  /** What was tried, in order, each with its outcome. */
  readonly tried: readonly string[];

  constructor(message: string, options: { tried?: readonly string[]; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "FindNatsError";
    this.tried = options.tried ?? [];
  }
}

/** The text of anything thrown. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The system's error code ("ENOENT", ...) of anything thrown. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
