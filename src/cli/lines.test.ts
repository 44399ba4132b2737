import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { forwardLines, LineCutter } from "./lines.ts";

describe("LineCutter", () => {
  it.each([
    [["a\nb\n"], ["a", "b"]],
    [
      ["a", "b\nc", "d\n"],
      ["ab", "cd"],
    ],
    [["a\r\n\r\nb"], ["a", "", "b"]],
    [["no end"], ["no end"]],
    [[""], []],
    [["abcdefgh\nij\n"], ["abc", "def", "gh", "ij"]],
    [
      ["abcdef", "gh"],
      ["abc", "def", "gh"],
    ],
    [["abc\n"], ["abc"]],
  ])("%j becomes %j with pieces of at most 3", (chunks, wanted) => {
    const short = wanted.every((line) => line.length <= 3);
    const cutter = new LineCutter(short ? 3 : 100);
    expect([...chunks.flatMap((chunk) => cutter.push(chunk)), ...cutter.end()]).toEqual(wanted);
  });

  it("never keeps more than the bound", () => {
    const cutter = new LineCutter(10);
    const lines = Array.from({ length: 100 }, () => cutter.push("1234567")).flat();
    expect(lines.every((line) => line.length === 10)).toBe(true);
    expect([...lines, ...cutter.end()].join("")).toBe("1234567".repeat(100));
  });
});

describe("forwardLines", () => {
  it("waits for the sink, keeps characters that are cut in two whole, and ends with the stream", async () => {
    const stream = new PassThrough();
    const seen: string[] = [];
    let busy = 0;
    const done = forwardLines(stream, async (line) => {
      expect(++busy).toBe(1);
      await new Promise(setImmediate);
      busy--;
      seen.push(line);
    });
    const text = Buffer.from("größe\nend");
    for (const byte of text) stream.write(Buffer.of(byte));
    stream.end();
    await done;
    expect(seen).toEqual(["größe", "end"]);
  });

  it("gives what has come when the stream breaks", async () => {
    const stream = new PassThrough();
    const seen: string[] = [];
    const done = forwardLines(stream, (line) => void seen.push(line));
    stream.write("a\nb");
    setImmediate(() => stream.destroy(new Error("gone")));
    await done;
    expect(seen).toEqual(["a", "b"]);
  });
});
