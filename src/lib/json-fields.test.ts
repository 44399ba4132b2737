import { describe, expect, it } from "vitest";
import { jsonFields } from "./json-fields.ts";

class Problem extends Error {}
const json = jsonFields((message) => new Problem(message));

describe("readers of JSON", () => {
  it.each([undefined, null])("take %s for empty", (nothing) => {
    expect(json.object(nothing, "it")).toEqual({});
    expect(json.members(nothing, "it")).toEqual([]);
    expect(json.fields(nothing, "it")).toEqual({});
    expect(json.array(nothing, "it")).toEqual([]);
    expect(json.text(nothing, "it")).toBe("");
    expect(json.texts(nothing, "it")).toEqual({});
    expect(json.boolean(nothing, "it")).toBe(false);
    expect(json.integer(nothing, "it")).toBe(0);
  });

  it("find members in any case; of several spellings the last counts", () => {
    const value = { Key: 1, other: 2, KEY: 3 };
    expect(json.members(value, "it")).toEqual([
      ["key", 1],
      ["other", 2],
      ["key", 3],
    ]);
    expect(json.fields(value, "it")).toEqual({ key: 3, other: 2 });
    expect(json.object(value, "it")).toBe(value);
  });

  it("keep names of texts, also odd ones", () => {
    const value: unknown = JSON.parse('{"A":"1","a":null,"__proto__":"2"}');
    expect(Object.entries(json.texts(value, "it"))).toEqual([
      ["A", "1"],
      ["a", ""],
      ["__proto__", "2"],
    ]);
  });

  it.each([
    [() => json.object([], "it"), "it must be an object, but is an array"],
    [() => json.members(7, "it"), "it must be an object, but is of type number"],
    [() => json.fields("x", "it"), "it must be an object, but is of type string"],
    [() => json.array({}, "it"), "it must be an array, but is of type object"],
    [() => json.text(true, "it"), "it must be a string, but is of type boolean"],
    [() => json.texts(["x"], "it"), "it must be an object, but is an array"],
    [() => json.texts({ 'a"': 1 }, "its"), 'its "a\\"" must be a string, but is of type number'],
    [() => json.boolean("true", "it"), "it must be true or false, but is of type string"],
    [() => json.integer(1.5, "it"), "it must be a whole number, but is of type number"],
    [() => json.integer(2 ** 53, "it"), "it must be a whole number, but is of type number"],
  ])("name what is wrong: %#", (read, message) => {
    expect(read).toThrow(new Problem(message));
    expect(read).toThrow(Problem);
  });
});
