import { describe, expect, it } from "vitest";
import { didYouMean, nearest } from "./nearest.ts";

const FLAGS = ["app-id", "app-port", "app-protocol", "config", "dapr-http-port", "log-level", "mode"];

describe("nearest", () => {
  it.each([
    ["app-prot", "app-port"],
    ["app-por", "app-port"],
    ["appid", "app-id"],
    ["App-Id", "app-id"],
    ["ap-pid", "app-id"],
    ["conifg", "config"],
    ["log-lvl", "log-level"],
    ["moed", "mode"],
  ])("finds what %s was meant to be", (word, expected) => {
    expect(nearest(word, FLAGS)).toBe(expected);
  });

  it.each(["zzz", "", "m", "resources-path", "x".repeat(10_000)])("finds nothing near %s", (word) => {
    expect(nearest(word, FLAGS)).toBeUndefined();
  });

  it("makes a sentence part of it", () => {
    expect(didYouMean("scope", ["spec", "scopes"])).toBe(', did you mean "scopes"?');
    expect(didYouMean("other", ["spec", "scopes"])).toBe("");
  });
});
