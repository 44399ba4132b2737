/** What a resource says as one text: equal texts, nothing that matters has changed. */

const beside = new Set(["origin", "typeOrigin", "tripOrigin", "problems", "held"]);

/** Data as text, without places in files and what was said about them. */
export function definitionText(data: unknown): string {
  return JSON.stringify(data, (key, value: unknown) => (beside.has(key) ? undefined : value)) ?? "";
}
