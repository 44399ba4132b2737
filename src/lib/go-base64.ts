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

const equals = 0x3d;

/** By code: it is one of the 64 digits. Texts have millions of them. */
const isDigit = Array.from({ length: 256 }, (_, code) => /[A-Za-z0-9+/]/.test(String.fromCharCode(code)));

function isLineBreak(code: number): boolean {
  return code === 0x0a || code === 0x0d;
}

/** Where Go gives up; undefined when it takes the text. */
function faultAt(text: string): number | undefined {
  const bytes = Buffer.from(text);
  /** Digits of the group of four that is open. */
  let open = 0;
  for (let at = 0; at < bytes.length; at++) {
    const code = bytes[at]!;
    if (isDigit[code] === true) open = (open + 1) % 4;
    else if (!isLineBreak(code)) return code === equals && open >= 2 ? faultInPadding(bytes, at, open) : at;
  }
  // Go counts digits back from the end, past line breaks.
  return open === 0 ? undefined : bytes.length - open;
}

/** `first`: where the first `=` stands, behind so many digits of its group. */
function faultInPadding(bytes: Uint8Array, first: number, digits: number): number | undefined {
  const next = (from: number): number => {
    let at = from;
    while (at < bytes.length && isLineBreak(bytes[at]!)) at++;
    return at;
  };
  let end = first + 1;
  if (digits === 2) {
    const second = next(end);
    if (second === bytes.length) return second;
    if (bytes[second] !== equals) return second - 1;
    end = second + 1;
  }
  const rest = next(end);
  return rest === bytes.length ? undefined : rest;
}
