/** What was thrown, as something that can be worked with: JavaScript lets anything be thrown. */

/** The message of an Error; anything else as text. */
export function textOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The stack of an Error, for what should not have been thrown; anything else as text. */
export function stackOf(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}

/** The message of an Error and of its cause: `fetch` says what went wrong only there. */
export function textWithCause(thrown: unknown): string {
  const text = textOf(thrown);
  return thrown instanceof Error && thrown.cause instanceof Error
    ? `${text} (${thrown.cause.message})`
    : text;
}

/** The Error itself, or one with the text of what was thrown. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
