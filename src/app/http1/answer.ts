/**
 * Reads HTTP/1.1 answers from the bytes of a connection, split wherever they like. As strict as undici's parser, with
 * its words for what is refused: an answer that two programs could read differently is none.
 */

export type AnswerEvents = {
  /** Interim answers (1xx) are not told. */
  onHead(status: number, headers: string[]): void;
  /** Valid only during the call: the buffer is read into again. */
  onBody(chunk: Buffer, from: number, to: number): void;
  onEnd(): void;
};

const headState = 0;
const bodyState = 1;
const untilCloseState = 2;
const chunkSizeState = 3;
const chunkExtensionState = 4;
const chunkSizeEndState = 5;
const chunkState = 6;
const chunkEndState = 7;
const trailerState = 8;
const doneState = 9;

/** Most text that is looked at in one go, bytes; a head is rarely larger, a body behind it often. */
const windowBytes = 4096;
/** Of each answer; Go's client takes 5. */
const maxInterims = 64;

const statusLine = /^HTTP\/(0\.9|1\.0|1\.1|2\.0) ([1-9]\d\d)(?: [^\r]*)?$/;
/** Whole header lines. A line cannot match in two ways, so that a long one costs no more than its length. */
const headerLines = /^(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*$/;
const endsChunked = /(?:^|,)[ \t]*chunked[ \t]*$/i;
const namesClose = /(?:^|,)[ \t]*close[ \t]*(?:,|$)/i;
const namesKeepAlive = /(?:^|,)[ \t]*keep-alive[ \t]*(?:,|$)/i;

export class AnswerParser {
  readonly #events: AnswerEvents;
  readonly #maxHeaderBytes: number;
  #state = doneState;
  /** An unfinished line of the head or of the trailers. */
  #partial = "";
  #bodiless = false;
  #version = "";
  #status = 0;
  #interims = 0;
  #headers: string[] = [];
  #headerBytes = 0;
  #length = -1;
  #encoded = false;
  #chunked = false;
  #connection = "";
  /** Of the body or of the chunk, bytes. */
  #left = 0;
  #chunkDigits = 0;
  /** The value of `Keep-Alive`. */
  keepAlive = "";
  /** The connection may serve another request once the answer has ended. */
  reusable = false;

  /** `maxHeaderBytes`: for the names and values of one head. */
  constructor(events: AnswerEvents, maxHeaderBytes: number) {
    this.#events = events;
    this.#maxHeaderBytes = maxHeaderBytes;
  }

  /** The next bytes answer a request with this verb. */
  begin(verb: string): void {
    this.#bodiless = verb === "HEAD";
    this.#interims = 0;
    this.#partial = "";
    this.#beginHead();
  }

  /** No further event. */
  stop(): void {
    this.#state = doneState;
  }

  /** Takes the first `size` bytes. Returns how many belong to the answer. Throws Error for what is no answer. */
  feed(chunk: Buffer, size: number): number {
    let at = 0;
    while (at < size && this.#state !== doneState) {
      switch (this.#state) {
        case headState:
        case trailerState:
          at = this.#readLines(chunk, at, size);
          break;
        case bodyState:
        case untilCloseState:
        case chunkState:
          at = this.#readBody(chunk, at, size);
          break;
        default:
          at = this.#readFraming(chunk, at, size);
      }
    }
    return at;
  }

  /**
   * No more bytes will come. True: that ends the answer, or there was none to come. False: an answer that was to leave
   * the connection open is cut off, or has not begun. Throws Error for one that is cut off in any other way.
   */
  finish(): boolean {
    if (this.#state === doneState) return true;
    if (this.#state === untilCloseState) {
      this.#end();
      return true;
    }
    if (this.#state === headState || this.#mayStay()) return false;
    throw this.#refusal("Invalid EOF state");
  }

  #beginHead(): void {
    this.#state = headState;
    this.#status = 0;
    this.#headers = [];
    this.#headerBytes = 0;
    this.#length = -1;
    this.#encoded = false;
    this.#chunked = false;
    this.#connection = "";
    this.#left = 0;
    this.keepAlive = "";
    this.reusable = false;
  }

  /** Lines of a head or of trailers, as far as they are there. */
  #readLines(chunk: Buffer, from: number, size: number): number {
    const known = this.#partial.length;
    const to = Math.min(size, from + windowBytes);
    const read = chunk.toString("latin1", from, to);
    const text = known === 0 ? read : this.#partial + read;
    let at = 0;
    if (this.#status === 0) {
      at = this.#readStatus(text);
      if (at === 0) return to;
    }
    const none = text.startsWith("\r\n", at);
    const last = none ? at : text.indexOf("\r\n\r\n", at);
    const whole = last !== -1;
    const stop = none ? at : whole ? last + 2 : Math.max(at, text.lastIndexOf("\n") + 1);
    const lines = text.slice(at, stop);
    if (!headerLines.test(lines)) throw this.#badLine(lines);
    while (at < stop) {
      const end = text.indexOf("\r\n", at);
      this.#readHeader(text, at, end);
      at = end + 2;
    }
    if (this.#headerBytes >= this.#maxHeaderBytes) throw headersOverflow();
    if (!whole) {
      this.#keepPartial(text.slice(at));
      return to;
    }
    this.#partial = "";
    if (this.#state === trailerState) this.#end();
    else this.#endHead();
    return from + at + 2 - known;
  }

  /** Returns where the line after the status line begins; 0 when that is not there yet. */
  #readStatus(text: string): number {
    let from = 0;
    while (text[from] === "\r" || text[from] === "\n") from++;
    const end = text.indexOf("\r\n", from);
    const line = text.slice(from, end === -1 ? undefined : end);
    if (!line.startsWith("HTTP/") && !"HTTP/".startsWith(end === -1 ? line : `${line}\r`))
      throw this.#refusal("Expected HTTP/, RTSP/ or ICE/");
    if (end === -1) {
      if (line.includes("\n")) throw this.#refusal("Missing expected CR after response line");
      // What stood before the line is not kept, so that its end needs no end of its own.
      this.#partial = line;
      if (line.length > this.#maxHeaderBytes + windowBytes) throw headersOverflow();
      return 0;
    }
    const match = statusLine.exec(line);
    if (match === null) throw this.#badStatusLine(line);
    this.#version = match[1]!;
    this.#status = Number(match[2]);
    return end + 2;
  }

  #readHeader(text: string, from: number, end: number): void {
    const colon = text.indexOf(":", from);
    let start = colon + 1;
    while (text[start] === " " || text[start] === "\t") start++;
    const name = text.slice(from, colon);
    const value = text.slice(start, end);
    this.#headerBytes += name.length + value.length;
    if (this.#state === headState) this.#headers.push(name, value);
    switch (name.length) {
      case 10: {
        const lower = name.toLowerCase();
        if (lower === "connection") this.#connection = joined(this.#connection, value);
        else if (lower === "keep-alive") this.keepAlive = joined(this.keepAlive, value);
        return;
      }
      case 14:
        if (name.toLowerCase() === "content-length") this.#readLength(value);
        return;
      case 17:
        if (name.toLowerCase() === "transfer-encoding") this.#readEncoding(value);
    }
  }

  #readLength(value: string): void {
    if (this.#encoded) throw this.#refusal("Content-Length can't be present with Transfer-Encoding");
    if (this.#length !== -1) throw this.#refusal("Content-Length already present");
    if (value === "") throw this.#refusal("Empty Content-Length");
    const digits = /^\d*/.exec(value)![0];
    this.#length = Number(digits);
    this.#left = this.#length;
    if (digits === "" || value.slice(digits.length).trim() !== "")
      throw this.#refusal("Invalid character in Content-Length");
    if (!Number.isSafeInteger(this.#length)) throw this.#refusal("Content-Length overflow");
  }

  #readEncoding(value: string): void {
    if (this.#length !== -1) throw this.#refusal("Transfer-Encoding can't be present with Content-Length");
    this.#encoded = true;
    if (this.#state === headState) this.#chunked = endsChunked.test(value);
  }

  #keepPartial(rest: string): void {
    if (!/^[\t\x20-\x7e\x80-\xff]*\r?$/.test(rest)) throw this.#badLine(rest);
    if (this.#headerBytes + rest.length > this.#maxHeaderBytes + windowBytes) throw headersOverflow();
    this.#partial = rest;
  }

  #endHead(): void {
    const status = this.#status;
    if (status < 200) {
      if (status === 101 || ++this.#interims > maxInterims)
        throw this.#refusal(status === 101 ? "Unexpected change of protocol" : "Too many interim answers");
      return this.#beginHead();
    }
    const carriesNone = status === 204 || status === 304;
    const stays = this.#mayStay();
    if (this.#bodiless || carriesNone) {
      // Some servers send a body nonetheless, which must not be read as the next answer.
      this.reusable = stays && !(this.#left > 0 || this.#encoded);
      this.#left = 0;
      this.#state = bodyState;
    } else if (this.#chunked) {
      this.reusable = stays;
      this.#expectChunk();
    } else if (this.#length === -1) {
      this.#state = untilCloseState;
    } else {
      this.reusable = stays;
      this.#state = bodyState;
    }
    this.#events.onHead(status, this.#headers);
    if (this.#state === bodyState && this.#left === 0) this.#end();
  }

  /** The app has not said that it closes the connection. */
  #mayStay(): boolean {
    if (this.#state === untilCloseState) return false;
    const connection = this.#connection;
    return this.#version === "1.1"
      ? connection === "" || !namesClose.test(connection)
      : namesKeepAlive.test(connection);
  }

  #readBody(chunk: Buffer, from: number, size: number): number {
    if (this.#state === untilCloseState) {
      this.#events.onBody(chunk, from, size);
      return size;
    }
    const to = Math.min(size, from + this.#left);
    this.#left -= to - from;
    this.#events.onBody(chunk, from, to);
    if (this.#left > 0) return to;
    if (this.#state === bodyState) this.#end();
    else if (this.#state === chunkState) {
      this.#state = chunkEndState;
      this.#left = 2;
    }
    return to;
  }

  #expectChunk(): void {
    this.#state = chunkSizeState;
    this.#left = 0;
    this.#chunkDigits = 0;
  }

  /** What stands between the pieces of a chunked body, byte by byte. */
  #readFraming(chunk: Buffer, from: number, size: number): number {
    let at = from;
    while (at < size) {
      const byte = chunk[at++]!;
      switch (this.#state) {
        case chunkSizeState:
          this.#readSizeDigit(byte);
          break;
        case chunkExtensionState:
          this.#readExtension(byte);
          break;
        case chunkSizeEndState:
          if (byte !== lf) throw this.#refusal("Expected LF after chunk size");
          this.#state = this.#left === 0 ? trailerState : chunkState;
          this.#headerBytes = 0;
          return at;
        default:
          // Two bytes are left: CR and LF.
          if (byte !== (this.#left-- === 2 ? cr : lf)) throw this.#refusal("Expected LF after chunk data");
          if (this.#left === 0) this.#expectChunk();
      }
    }
    return at;
  }

  #readSizeDigit(byte: number): void {
    const digit = hexValue(byte);
    if (digit !== -1) {
      this.#chunkDigits = 1;
      this.#left = this.#left * 16 + digit;
      if (!Number.isSafeInteger(this.#left)) throw this.#refusal("Chunk size overflow");
    } else if (this.#chunkDigits === 0) throw this.#refusal("Invalid character in chunk size");
    else if (byte === semicolon) {
      this.#state = chunkExtensionState;
      this.#headerBytes = 0;
    } else if (byte === cr) this.#state = chunkSizeEndState;
    else if (byte === lf) throw this.#refusal("Missing expected CR after chunk size");
    else throw this.#refusal("Invalid character in chunk size");
  }

  #readExtension(byte: number): void {
    if (byte === cr) this.#state = chunkSizeEndState;
    else if ((byte < 0x20 && byte !== tab) || byte === del)
      throw this.#refusal("Invalid character in chunk extensions name");
    else if (++this.#headerBytes >= this.#maxHeaderBytes) throw headersOverflow();
  }

  #end(): void {
    this.#state = doneState;
    this.#events.onEnd();
  }

  #badStatusLine(line: string): Error {
    if (line.includes("\n")) return this.#refusal("Missing expected CR after response line");
    if (!/^HTTP\/(0\.9|1\.0|1\.1|2\.0)( |$)/.test(line)) return this.#refusal("Invalid HTTP version");
    if (!/^\S+ [1-9]\d\d/.test(line)) return this.#refusal("Invalid status code");
    if (!/^\S+ \d\d\d(?: |$)/.test(line)) return this.#refusal("Invalid response status");
    return this.#refusal("Expected LF after CR");
  }

  /** One of these lines is wrong; those before it count for what is told. */
  #badLine(lines: string): Error {
    for (const line of lines.split("\r\n")) {
      if (headerLines.test(`${line}\r\n`)) {
        this.#readHeader(line, 0, line.length);
        continue;
      }
      if (/^[ \t]/.test(line)) return this.#refusal("Unexpected whitespace after header value");
      const value = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:(.*)$/s.exec(line)?.[1];
      if (value === undefined) break;
      const bad = /[^\t\x20-\x7e\x80-\xff]/.exec(value)?.[0];
      if (bad === "\r") return this.#refusal("Missing expected LF after header value");
      if (bad === "\n") return this.#refusal("Missing expected CR after header value");
      return this.#refusal("Invalid header value char");
    }
    return this.#refusal("Invalid header token");
  }

  /** Once the length of a body is known, only that is told: undici's way, and clients see it. */
  #refusal(reason: string): Error {
    if (this.#length !== -1 && this.#left > 0)
      return new Error("Response body length does not match content-length header");
    return new Error(`Response does not match the HTTP/1.1 protocol (${reason})`);
  }
}

const tab = 0x09;
const lf = 0x0a;
const cr = 0x0d;
const semicolon = 0x3b;
const del = 0x7f;

function hexValue(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

function joined(before: string, value: string): string {
  return before === "" ? value : `${before},${value}`;
}

function headersOverflow(): Error {
  return new Error("Headers Overflow Error");
}
