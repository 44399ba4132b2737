/** Any text as the value, or the name, of a NATS header, in percent form: mesh/README.md, `Weft-Meta-<name>`. */

/** Percent-encodes all but visible ASCII, and more, since what is kept may stand in a name; `%` alone is no text. */
export function encodeText(text: string): string {
  return text.replace(/[^!#$&'*+\-.0-9A-Z^_`a-z|~]/gu, (char) => {
    let out = "";
    for (const byte of Buffer.from(char)) out += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    return out;
  });
}

/** A lone `%` stands for the empty text, which NATS headers cannot tell from no header. */
export function decodeText(text: string): string {
  if (text === "%") return "";
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
