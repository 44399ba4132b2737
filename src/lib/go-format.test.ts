import { expect, test } from "vitest";
import { goTextVerb } from "./go-format.ts";

test.each([
  ["text", "text"],
  [true, "%!s(bool=true)"],
  [null, "%!s(<nil>)"],
  [3, "%!s(float64=3)"],
  [-0, "%!s(float64=-0)"],
  [1.5, "%!s(float64=1.5)"],
  [999_999, "%!s(float64=999999)"],
  [1_000_000, "%!s(float64=1e+06)"],
  [123_456_789, "%!s(float64=1.23456789e+08)"],
  [0.0001, "%!s(float64=0.0001)"],
  [0.000_012, "%!s(float64=1.2e-05)"],
  [1e300, "%!s(float64=1e+300)"],
])("%j", (value, text) => expect(goTextVerb(value)).toBe(text));
