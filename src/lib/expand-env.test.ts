import { describe, expect, it } from "vitest";
import { expandEnv } from "./expand-env.ts";

const env = { A: "1", AB: "two", 1: "one", _x: "u", "*": "star", E: "" };

describe("expandEnv", () => {
  // Expected texts were printed by Go's os.Expand.
  it.each([
    ["$A", "1"],
    ["$AB", "two"],
    ["${A}B", "1B"],
    ["$A-B", "1-B"],
    ["$$A", "A"],
    ["$$", ""],
    ["$", "$"],
    ["a$ b", "a$ b"],
    ["${", ""],
    ["${A", "A"],
    ["${}", ""],
    ["${}x", "x"],
    ["$}x", "$}x"],
    ["${A b}", ""],
    ["$1A", "oneA"],
    ["$11", "one1"],
    ["$12", "one2"],
    ["$_x", "u"],
    ["$*x", "starx"],
    ["$#x", "x"],
    ["${*}", "star"],
    ["${1}", "one"],
    ["${12}", ""],
    ["$(A)", "$(A)"],
    ["$.A", "$.A"],
    ["${A$B}", ""],
    ["$é", "$é"],
    ["${é}", ""],
    ["100%$", "100%$"],
    ["$NOPE.", "."],
    ["$E.", "."],
    ["$-A", "A"],
    ["$?A", "A"],
    ["$!", ""],
    ["$@", ""],
    ["${-}", ""],
    ["$A$AB", "1two"],
    ["${ A}", ""],
    ["${A\n}x", "x"],
    ["${\n}x", "x"],
    ["$${A}", "{A}"],
    ["${$}x", "x"],
    ["${$A}", ""],
    ["${{A}}", "}"],
    ["${_x}", "u"],
    ["${*x}", ""],
    ["${12a}", ""],
    ["${a-b}", ""],
  ])("turns %j into %j", (text, expanded) => {
    expect(expandEnv(text, env)).toBe(expanded);
  });

  it("knows no variable that an object merely inherits", () => {
    expect(expandEnv("$toString${constructor}", {})).toBe("");
  });
});
