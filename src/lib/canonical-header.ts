/** Header names as Go's net/textproto writes them. */

/** Every part between hyphens with a capital and the rest small: `metadata.statusCode` gives `Metadata.statuscode`. */
export function canonicalHeader(name: string): string {
  return name.toLowerCase().replace(/(?:^|-)[a-z]/g, (start) => start.toUpperCase());
}
