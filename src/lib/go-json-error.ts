/**
 * Says what is wrong with a JSON text in the words of Go's encoding/json, which Dapr's clients see in error
 * messages. Only run after JSON.parse has refused a text, so it is written for exactness; it still has to be
 * linear, because anyone may send a long wrong body.
 */
import { goQuote } from "./go-quote.ts";

/**
 * How Go would have read the text: `unmarshal` takes the whole text as one value, `decoder` takes the first value
 * and leaves the rest.
 */
export type GoJsonReader = "unmarshal" | "decoder";

/** Either the first value ends before byte `endByte`, or `message` says why there is none. */
export type GoJsonScan =
  | { readonly ok: true; readonly endByte: number }
  | { readonly ok: false; readonly message: string };

/** Go refuses deeper nesting. */
const MAX_DEPTH = 10_000;
const DIGIT = /[0-9]/;
const HEX = /[0-9a-fA-F]/;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** First letters of the words that are values. */
const WORDS: ReadonlyMap<string, string> = new Map([
  ["t", "true"],
  ["f", "false"],
  ["n", "null"],
]);
const OBJECT = "}";
const ARRAY = "]";

/**
 * Go's message for the first error in `text`, or undefined when that reader accepts it.
 * Examples: `unexpected end of JSON input` (`unmarshal`), `EOF` and `unexpected EOF` (`decoder`),
 * `invalid character 'x' looking for beginning of value`.
 */
export function goJsonError(text: string | Uint8Array, reader: GoJsonReader): string | undefined {
  const scan = scanGoJson(text, reader);
  return scan.ok ? undefined : scan.message;
}

/** Finds the first JSON value in `text` as the given Go reader would. */
export function scanGoJson(text: string | Uint8Array, reader: GoJsonReader): GoJsonScan {
  // One character per byte: Go's messages quote single bytes, also in the middle of a UTF-8 sequence.
  const bytes = Buffer.from(typeof text === "string" ? Buffer.from(text) : text).toString("latin1");
  if (reader === "decoder") {
    const outcome = new Scanner(bytes).scan();
    if (outcome !== "incomplete") return outcome;
    return { ok: false, message: /[^ \t\r\n]/.test(bytes) ? "unexpected EOF" : "EOF" };
  }
  // Go tells Unmarshal about the end by one more blank, and reports that blank when it cannot stand there.
  const outcome = new Scanner(`${bytes} `).scan();
  if (outcome === "incomplete") return { ok: false, message: "unexpected end of JSON input" };
  if (!outcome.ok) return outcome;
  const rest = /[^ \t\r\n]/.exec(bytes.slice(outcome.endByte))?.[0];
  if (rest === undefined) return outcome;
  return { ok: false, message: `invalid character ${quoteByte(rest)} after top-level value` };
}

/** What may stand next between tokens. */
type Expectation = "value" | "value or ]" | "key" | "key or }" | "colon" | "comma or end";

class Scanner {
  readonly #text: string;
  #at = 0;
  /** Closing characters of the open objects and arrays. */
  readonly #open: string[] = [];
  #failure = "";

  constructor(text: string) {
    this.#text = text;
  }

  scan(): GoJsonScan | "incomplete" {
    let expected: Expectation = "value";
    for (;;) {
      while (isSpace(this.#text.charCodeAt(this.#at))) this.#at++;
      const char = this.#text.charAt(this.#at);
      if (char === "") return "incomplete";
      const next = this.#step(char, expected);
      if (next === undefined) {
        return this.#failure === "" ? "incomplete" : { ok: false, message: this.#failure };
      }
      if (next === "comma or end" && this.#open.length === 0) return { ok: true, endByte: this.#at };
      expected = next;
    }
  }

  /** Takes one token; undefined means that `#failure` is set or the text ended inside the token. */
  #step(char: string, expected: Expectation): Expectation | undefined {
    switch (expected) {
      case "value or ]":
        return char === ARRAY ? this.#close() : this.#value(char);
      case "value":
        return this.#value(char);
      case "key or }":
        if (char === OBJECT) return this.#close();
        return this.#key(char);
      case "key":
        return this.#key(char);
      case "colon":
        if (char !== ":") return this.#fail(char, "after object key");
        this.#at++;
        return "value";
      case "comma or end":
        return this.#afterValue(char);
    }
  }

  #key(char: string): Expectation | undefined {
    if (char !== '"') return this.#fail(char, "looking for beginning of object key string");
    return this.#string() ? "colon" : undefined;
  }

  #afterValue(char: string): Expectation | undefined {
    const closing = this.#open.at(-1);
    if (char === closing) return this.#close();
    if (char !== ",") {
      return this.#fail(char, closing === OBJECT ? "after object key:value pair" : "after array element");
    }
    this.#at++;
    return closing === OBJECT ? "key" : "value";
  }

  #close(): Expectation {
    this.#open.pop();
    this.#at++;
    return "comma or end";
  }

  #value(char: string): Expectation | undefined {
    if (char === "{" || char === "[") {
      if (this.#open.push(char === "{" ? OBJECT : ARRAY) > MAX_DEPTH) {
        this.#failure = `invalid character ${quoteByte(char)} exceeded max depth`;
        return undefined;
      }
      this.#at++;
      return char === "{" ? "key or }" : "value or ]";
    }
    if (char === '"') return this.#string() ? "comma or end" : undefined;
    if (char === "-" || isDigit(char.charCodeAt(0))) return this.#number() ? "comma or end" : undefined;
    const word = WORDS.get(char);
    if (word === undefined) return this.#fail(char, "looking for beginning of value");
    return this.#literal(word) ? "comma or end" : undefined;
  }

  #literal(word: string): boolean {
    for (const letter of word) {
      if (!this.#take(letter, `in literal ${word} (expecting '${letter}')`)) return false;
    }
    return true;
  }

  #string(): boolean {
    this.#at++;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (Number.isNaN(code)) return false;
      if (code < 0x20) return this.#fail(this.#text.charAt(this.#at), "in string literal") !== undefined;
      this.#at++;
      if (code === QUOTE) return true;
      if (code === BACKSLASH && !this.#escape()) return false;
    }
  }

  #escape(): boolean {
    const unicode = this.#text.charAt(this.#at) === "u";
    if (!this.#take(/[bfnrt\\/"u]/, "in string escape code")) return false;
    for (let digit = 0; unicode && digit < 4; digit++) {
      if (!this.#take(HEX, "in \\u hexadecimal character escape")) return false;
    }
    return true;
  }

  #number(): boolean {
    if (this.#next() === "-") this.#at++;
    const zero = this.#next() === "0";
    if (!this.#take(DIGIT, "in numeric literal")) return false;
    if (!zero) this.#skipDigits();
    if (this.#next() === ".") {
      this.#at++;
      if (!this.#take(DIGIT, "after decimal point in numeric literal")) return false;
      this.#skipDigits();
    }
    if (this.#next() === "e" || this.#next() === "E") {
      this.#at++;
      if (this.#next() === "-" || this.#next() === "+") this.#at++;
      if (!this.#take(DIGIT, "in exponent of numeric literal")) return false;
      this.#skipDigits();
    }
    return true;
  }

  #skipDigits(): void {
    while (isDigit(this.#text.charCodeAt(this.#at))) this.#at++;
  }

  #next(): string {
    return this.#text.charAt(this.#at);
  }

  /** Consumes one character that fits, else fails; false without a failure at the end of the text. */
  #take(wanted: string | RegExp, context: string): boolean {
    const char = this.#text.charAt(this.#at);
    if (char === "") return false;
    if (typeof wanted === "string" ? char !== wanted : !wanted.test(char)) {
      return this.#fail(char, context) !== undefined;
    }
    this.#at++;
    return true;
  }

  #fail(char: string, context: string): undefined {
    this.#failure = `invalid character ${quoteByte(char)} ${context}`;
    return undefined;
  }
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

function quoteByte(char: string): string {
  if (char === "'") return "'\\''";
  if (char === '"') return "'\"'";
  return `'${goQuote(char).slice(1, -1)}'`;
}
