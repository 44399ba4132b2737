/**
 * Go's quoted string form (strconv.Quote and Unquote): many of Dapr's messages quote values so, and a secret whose
 * text is one quoted literal is unquoted once.
 */

const PRINTABLE = /^[ \p{L}\p{M}\p{N}\p{P}\p{S}]$/u;
const SHORT_ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\u0007", "\\a"],
  ["\b", "\\b"],
  ["\f", "\\f"],
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
  ["\v", "\\v"],
  ["\\", "\\\\"],
  ['"', '\\"'],
]);
const LITERAL_ESCAPES: ReadonlyMap<string, string> = new Map([
  ["a", "\u0007"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
  ["\\", "\\"],
]);

/** `text` in double quotes, with Go's escapes for everything that is not printable (`%q`). */
export function goQuote(text: string): string {
  let out = '"';
  for (const char of text) out += SHORT_ESCAPES.get(char) ?? quoteRune(char);
  return out + '"';
}

function quoteRune(char: string): string {
  if (PRINTABLE.test(char)) return char;
  const code = char.codePointAt(0) ?? 0;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code >= 0xd800 && code <= 0xdfff) return "\\ufffd";
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\U${code.toString(16).padStart(8, "0")}`;
}

/**
 * The text inside a Go string or rune literal (`"a\n"`, a back-quoted raw string, `'x'`), or undefined when the
 * whole of `text` is not one.
 */
export function goUnquote(text: string): string | undefined {
  const quote = text[0];
  if (text.length < 2 || quote === undefined || quote !== text.at(-1)) return undefined;
  const inner = text.slice(1, -1);
  if (quote === "`") return inner.includes("`") ? undefined : inner.replaceAll("\r", "");
  if ((quote !== '"' && quote !== "'") || inner.includes("\n")) return undefined;
  const plain = unescape(inner, quote);
  if (quote === "'" && plain !== undefined && [...plain].length !== 1) return undefined;
  return plain;
}

/** Resolves escapes; hex and octal escapes below name bytes, so runs of them are decoded as UTF-8 together. */
function unescape(inner: string, quote: string): string | undefined {
  const pattern = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))|([^\\]+)|\\/gsu;
  const chunks: Buffer[] = [];
  for (const match of inner.matchAll(pattern)) {
    const [, hex, short, long, octal, letter, plain] = match;
    if (plain !== undefined) {
      if (plain.includes(quote)) return undefined;
      chunks.push(Buffer.from(plain));
    } else if (hex !== undefined || octal !== undefined) {
      const byte = hex === undefined ? Number.parseInt(octal ?? "", 8) : Number.parseInt(hex, 16);
      if (byte > 255) return undefined;
      chunks.push(Buffer.of(byte));
    } else if (short !== undefined || long !== undefined) {
      const code = Number.parseInt(short ?? long ?? "", 16);
      if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return undefined;
      chunks.push(Buffer.from(String.fromCodePoint(code)));
    } else {
      const char = letter === quote ? quote : LITERAL_ESCAPES.get(letter ?? "");
      if (char === undefined) return undefined;
      chunks.push(Buffer.from(char));
    }
  }
  return Buffer.concat(chunks).toString();
}
