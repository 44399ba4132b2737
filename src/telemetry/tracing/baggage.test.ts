import { describe, expect, it } from "vitest";
import { baggageFault } from "./baggage.ts";

describe("baggage", () => {
  it.each([
    "a=1",
    "a=1,b=2",
    "a=1;prop;p=q , b=%20x",
    "a=",
    Array.from({ length: 180 }, (_, at) => `k${at}=1`).join(),
  ])("takes %j", (text) => expect(baggageFault(text)).toBeUndefined());

  it.each([
    "",
    "a",
    "=1",
    "a=1,",
    "a b=1",
    'a="x"',
    "a=%zz",
    "a=1;=",
    "a=ü",
    `a=${"x".repeat(8_192)}`,
    Array.from({ length: 181 }, (_, at) => `k${at}=1`).join(),
  ])("refuses %j", (text) => expect(baggageFault(text)).not.toBeUndefined());
});
