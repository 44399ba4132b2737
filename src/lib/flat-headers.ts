/** Header lists as they travel through the sidecar: name, value, name, value. Names compare in any letter case. */

/** First value of a header; undefined when absent. */
export function getHeader(headers: readonly string[], name: string): string | undefined {
  const lower = name.toLowerCase();
  for (let i = 0; i + 1 < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === lower) return headers[i + 1];
  return undefined;
}

/** All values of a header, in their order. */
export function headerValues(headers: readonly string[], name: string): string[] {
  const lower = name.toLowerCase();
  const values: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === lower) values.push(headers[i + 1]!);
  return values;
}

/** A list without a header. */
export function withoutHeader(headers: readonly string[], name: string): string[] {
  const lower = name.toLowerCase();
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2)
    if (headers[i]!.toLowerCase() !== lower) kept.push(headers[i]!, headers[i + 1]!);
  return kept;
}

/** A list in which a header has this value alone. */
export function withHeader(headers: readonly string[], name: string, value: string): string[] {
  const kept = withoutHeader(headers, name);
  kept.push(name, value);
  return kept;
}
