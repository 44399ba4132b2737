/**
 * Turns the output of a child process into whole lines. A line longer than the bound is passed on in pieces, so that
 * an app which never ends a line cannot fill our memory.
 */
import type { Readable } from "node:stream";

/** Longest piece of one line, in UTF-16 units. */
export const maxLineLength = 64 * 1024;

/** Collects text and gives the lines that have become complete. */
export class LineCutter {
  readonly #maxLength: number;
  #rest = "";

  constructor(maxLength = maxLineLength) {
    this.#maxLength = maxLength;
  }

  /** Lines without their ends (`\n` or `\r\n`), in order. */
  push(text: string): string[] {
    const parts = (this.#rest + text).split("\n");
    this.#rest = parts.pop() ?? "";
    const lines = parts.flatMap((line) => this.#pieces(line.endsWith("\r") ? line.slice(0, -1) : line));
    if (this.#rest.length > this.#maxLength) {
      const pieces = this.#pieces(this.#rest);
      this.#rest = pieces.pop() ?? "";
      lines.push(...pieces);
    }
    return lines;
  }

  /** What came after the last line end, as a last line if there is anything. */
  end(): string[] {
    const rest = this.#rest;
    this.#rest = "";
    return rest === "" ? [] : [rest];
  }

  #pieces(line: string): string[] {
    const pieces: string[] = [];
    let start = 0;
    for (; line.length - start > this.#maxLength; start += this.#maxLength) {
      pieces.push(line.slice(start, start + this.#maxLength));
    }
    pieces.push(line.slice(start));
    return pieces;
  }
}

/** Takes one line. A promise holds the source back until it resolves. Must not throw. */
export type LineSink = (line: string) => Promise<void> | undefined;

/** Passes all lines of `stream` on until it ends, breaks or is destroyed. Never rejects. */
export async function forwardLines(stream: Readable, sink: LineSink): Promise<void> {
  const cutter = new LineCutter();
  stream.setEncoding("utf8");
  try {
    for await (const text of stream) {
      for (const line of cutter.push(String(text))) await sink(line);
    }
  } catch {
    // A broken pipe ends the output like any other end.
  }
  for (const line of cutter.end()) await sink(line);
}
