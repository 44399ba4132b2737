/** The words that Dapr takes for yes, in any case and with blanks around; everything else is no. */
const words: ReadonlySet<string> = new Set(["y", "yes", "true", "t", "on", "1"]);

export function isTruthy(text: string | undefined): boolean {
  return text !== undefined && words.has(text.trim().toLowerCase());
}
