import { expect, it } from "vitest";
import { BodyQueue } from "./body.ts";

it("tells each byte that is taken once, also when it was put back in between", async () => {
  const taken: [number, number][] = [];
  const body = new BodyQueue({ onTaken: (...what) => void taken.push(what) });
  body.push(Buffer.from("abc"));
  body.push(Buffer.from("de"));
  const first = body.takeReady(100);
  expect([first.toString(), taken]).toEqual(["abcde", [[5, 2]]]);
  body.putBack(first);
  body.push(Buffer.from("f"));
  expect(body.takeReady(100).toString()).toBe("abcdef");
  expect(taken).toEqual([
    [5, 2],
    [1, 1],
  ]);
  body.putBack(Buffer.from("abcdef"));
  body.push(Buffer.from("g"));
  body.end();
  const read: string[] = [];
  for await (const piece of body) read.push(Buffer.from(piece).toString());
  expect([read, taken.slice(2)]).toEqual([["abcdef", "g"], [[1, 1]]]);
});
