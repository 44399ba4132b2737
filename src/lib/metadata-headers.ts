/** Metadata that a component gives beside its answer, as headers of an HTTP answer. */
import { canonicalHeader } from "./canonical-header.ts";
import { isToken } from "./http-field.ts";

/** Headers `Metadata.<key>`; a key that no header name can hold is left out. */
export function metadataHeaders(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata)) {
    const name = canonicalHeader(`metadata.${key}`);
    if (isToken(name)) headers[name] = headerText(value);
  }
  return headers;
}

/** Header values hold neither line breaks nor characters beyond latin1; UTF-8 bytes do. */
function headerText(text: string): string {
  return Buffer.from(text.replace(/[\r\n\0]+/g, " ")).toString("latin1");
}
