/**
 * Standard base64 with padding as Go's encoding/base64 reads it: line breaks anywhere, unused bits of any value, and
 * Go's words for what is wrong.
 */

/** @throws {Error} naming the byte at which Go gives up. */
export function decodeGoBase64(text: string): Buffer {
  const bytes = Buffer.from(text, "base64");
  const fault = bytes.toString("base64") === text ? undefined : faultAt(text);
  if (fault !== undefined) throw new Error(`illegal base64 data at input byte ${fault}`);
  return bytes;
}

const digit = /[A-Za-z0-9+/]/;
const lineBreak = /[\r\n]/;

/** Where Go gives up; undefined when it takes the text. */
function faultAt(text: string): number | undefined {
  const bytes = Buffer.from(text).toString("latin1");
  /** Digits of the group of four that is open. */
  let open = 0;
  for (let at = 0; at < bytes.length; at++) {
    const char = bytes[at]!;
    if (lineBreak.test(char)) continue;
    if (digit.test(char)) open = (open + 1) % 4;
    else return char === "=" && open >= 2 ? faultInPadding(bytes, at, open) : at;
  }
  // Go counts digits back from the end, past line breaks.
  return open === 0 ? undefined : bytes.length - open;
}

/** `first`: where the first `=` stands, behind so many digits of its group. */
function faultInPadding(bytes: string, first: number, digits: number): number | undefined {
  const next = (from: number): number => {
    let at = from;
    while (at < bytes.length && lineBreak.test(bytes[at]!)) at++;
    return at;
  };
  let end = first + 1;
  if (digits === 2) {
    const second = next(end);
    if (second === bytes.length) return second;
    if (bytes[second] !== "=") return second - 1;
    end = second + 1;
  }
  const rest = next(end);
  return rest === bytes.length ? undefined : rest;
}
