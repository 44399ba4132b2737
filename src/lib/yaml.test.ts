import { describe, expect, it } from "vitest";
import { goJson } from "./go-json.ts";
import { parseYaml, type YamlMap, yamlToJson, yamlToText } from "./yaml.ts";

/** The root of the only document. */
function read(text: string): YamlMap {
  const [document] = parseYaml(text);
  if (document?.error !== undefined) throw new Error(JSON.stringify(document.error));
  if (document?.root?.kind !== "map") throw new Error("not a mapping");
  return document.root;
}

function json(text: string): string {
  return goJson(yamlToJson(read(text)));
}

describe("parseYaml", () => {
  // Expected texts were printed by sigs.k8s.io/yaml, the reader in daprd.
  it.each([
    ["yes", "true"],
    ["y", "true"],
    ["Y", "true"],
    ["on", "true"],
    ["off", "false"],
    ["True", "true"],
    ["TRUE", "true"],
    ["tRue", '"tRue"'],
    ["n", "false"],
    ["No", "false"],
    ["010", "8"],
    ["0o10", "8"],
    ["0x1F", "31"],
    ["0b11", "3"],
    ["1_000", "1000"],
    ["1.0", "1"],
    ["1.50", "1.5"],
    ["1e3", "1000"],
    ["1E3", "1000"],
    [".5", "0.5"],
    ["5.", "5"],
    ["1e-7", "1e-7"],
    ["1e21", "1e+21"],
    ["123456789012345678", "123456789012345678"],
    ["12345678901234567890", "12345678901234567890"],
    ["123456789012345678901", "123456789012345680000"],
    ["-0", "0"],
    ["+5", "5"],
    ["+1.5", "1.5"],
    ["190:20:30", '"190:20:30"'],
    ["12:30", '"12:30"'],
    ["2001-12-14", '"2001-12-14"'],
    ["2001-12-14t21:59:43.10-05:00", '"2001-12-14t21:59:43.10-05:00"'],
    ["~", "null"],
    ["null", "null"],
    ["Null", "null"],
    ["", "null"],
    ['"yes"', '"yes"'],
    ["'010'", '"010"'],
    ["{a: 1, b: yes, c: [1, 2.0]}", '{"a":1,"b":true,"c":[1,2]}'],
    ["[a, yes, 010]", '["a",true,8]'],
    ["!!str yes", '"yes"'],
    ['!!int "5"', "5"],
    ["!!binary aGVsbG8=", '"hello"'],
    ["0.1", "0.1"],
    ["100000000.5", "100000000.5"],
    ["1e5", "100000"],
    ["0_1", "1"],
    ["08", "8"],
    ["09", "9"],
    ["=", '"="'],
    ["<<", '"\\u003c\\u003c"'],
    ["|\n  abc\n  def", '"abc\\ndef\\n"'],
    [">\n  abc\n  def", '"abc def\\n"'],
    ["1_0.5", "10.5"],
    ["1__0", "10"],
    ["_1", '"_1"'],
    ["0x_1F", "31"],
    ["-010", "-8"],
    ["-0x1F", "-31"],
    ["1e+3", "1000"],
    ["12e03", "12000"],
    ["1.5e3", "1500"],
    ["0xZ", '"0xZ"'],
    ["1,000", '"1,000"'],
    ["&a foo", '"foo"'],
    ["!custom foo", '"foo"'],
    ["!!float 1", "1"],
    ['!!bool "yes"', "true"],
    ['!!null ""', "null"],
    ["1.e3", "1000"],
    [".e3", '".e3"'],
    ["0.", "0"],
    ["00", "0"],
    ["0.10", "0.1"],
    ["1.0e+2", "100"],
    ["{a: 1, a: 2}", '{"a":2}'],
  ])("gives %j the value %s", (text, value) => {
    const node = read(`v: ${text}\n`).entries.get("v")?.value;
    expect(goJson(node && yamlToJson(node))).toBe(value);
  });

  it.each([
    ["{on: a, 010: b, 1.0: c}", '{"1":"c","8":"b","true":"a"}'],
    ["{a: 1, a: 2}", '{"a":2}'],
    ["{__proto__: 1}", '{"__proto__":1}'],
  ])("reads the keys of %s", (text, value) => {
    expect(json(`v: ${text}\n`)).toBe(`{"v":${value}}`);
  });

  it("replaces aliases and merges mappings, own keys first", () => {
    expect(json("x: &x {s: 1, t: 1}\nz: &z {u: 3}\nv: {<<: [*x, *z], t: 2}\nw: *x\n")).toBe(
      '{"v":{"s":1,"t":2,"u":3},"w":{"s":1,"t":1},"x":{"s":1,"t":1},"z":{"u":3}}',
    );
  });

  it("takes a byte order mark, JSON, and DOS line ends", () => {
    expect(json("\ufeffs: a\n")).toBe('{"s":"a"}');
    expect(json('{"s": "a",\n "v": 1}')).toBe('{"s":"a","v":1}');
    expect(json("s: a\r\nv: b\r\n")).toBe('{"s":"a","v":"b"}');
  });

  it("splits documents and drops the rest of the separator's line", () => {
    const documents = parseYaml("---\na: 1\n--- # two\nb: 2\n---\n\n---\nc: 3\n...\nd: 4\n---");
    expect(documents.map(({ root }) => root && yamlToJson(root))).toEqual([
      { a: 1 },
      { b: 2 },
      undefined,
      { c: 3 },
      undefined,
    ]);
  });

  it("counts lines through the whole file", () => {
    const documents = parseYaml("# head\na: 1\n---\n\nb:\n  - x\n---\nc: 3\n");
    expect(documents.map(({ root }) => root && [...(root as YamlMap).entries.values()][0]?.at)).toEqual([
      { line: 2, column: 1 },
      { line: 5, column: 1 },
      { line: 8, column: 1 },
    ]);
    const second = documents[1]?.root;
    const list = second?.kind === "map" ? second.entries.get("b")?.value : undefined;
    expect(list?.kind === "list" && list.items[0]).toMatchObject({ value: "x", line: 6, column: 5 });
  });

  it.each([
    [
      "a: b: c",
      1,
      4,
      "Nested mappings are not allowed in compact mappings; put the value in quotes if it contains " +
        '": ", else check the indentation',
    ],
    ["a:\n\t- b", 2, 1, "Tabs are not allowed as indentation; indent with spaces"],
    ["a: 1\nb: @x", 2, 4, "Plain value cannot start with reserved character @; put the value in quotes"],
    ['a: "\\q"', 1, 5, "Invalid escape sequence \\q; write the backslash twice or use single quotes"],
    [
      "a: {b: 1",
      1,
      9,
      "Flow map in block collection must be sufficiently indented and end with a }; check the " +
        "indentation and the closing brackets",
    ],
    ["a: 'it's'", 1, 8, "Unexpected scalar at node end; check the indentation and the quotes"],
    [
      "a: 1\nb\nc: 3",
      2,
      1,
      'Implicit map keys need to be followed by map values; add what is missing, such as ":" after a ' +
        "key or a closing quote",
    ],
    ["a: *x", 1, 4, 'no anchor "&x" stands before this alias'],
    ["a: &x [*x]", 1, 7, "nested deeper than 100 levels, or an anchor contains itself; take some out"],
    ["a: {[b]: 1}", 1, 5, 'a key must be a plain word before ":"'],
    ["a: {: 1}", 1, 5, 'a key must be a plain word before ":"'],
  ])("refuses %j at %d:%d", (text, line, column, message) => {
    const [document] = parseYaml(text);
    expect(document).toEqual({
      root: undefined,
      error: { line, column, message: `not valid YAML: ${message}` },
      warnings: [],
    });
  });

  it("gives the line of an error in a later document and keeps the others", () => {
    const documents = parseYaml("a: 1\n---\nb: [\n---\nc: 3\n");
    expect(documents.map(({ error }) => error?.line)).toEqual([undefined, 3, undefined]);
    expect(documents[2]?.root).toBeDefined();
  });

  it("warns of a key that is given twice", () => {
    const [document] = parseYaml("a: 1\nb: 2\na: 3\n");
    expect(document?.warnings).toEqual([
      { line: 3, column: 1, message: '"a" is given twice, the last one is used' },
    ]);
  });

  it("bounds what nesting and aliases can cost", () => {
    expect(parseYaml("[".repeat(5_000))[0]?.error?.message).toMatch(/^not valid YAML: /);
    const levels = Array.from(
      { length: 9 },
      (_, i) =>
        `l${i}: &l${i} [${Array(9)
          .fill(i === 0 ? "x" : `*l${i - 1}`)
          .join(", ")}]`,
    );
    expect(parseYaml(levels.join("\n"))[0]?.error?.message).toBe(
      "not valid YAML: aliases expand to more than 50000 values",
    );
  });

  it("reads a document of more than 64 KiB", () => {
    const text = "x".repeat(200_000);
    expect(read(`a: ${text}\n`).entries.get("a")?.value).toMatchObject({ value: text });
  });
});

describe("yamlToText", () => {
  it.each([
    ["plain", "plain"],
    ["~", ""],
    ["yes", "true"],
    ["1.0", "1"],
    ["12345678901234567890", "12345678901234567890"],
    ["[a, yes, 010]", '["a",true,8]'],
    ["{b: 1.0, a: 12345678901234567890}", '{"a":12345678901234567890,"b":1}'],
  ])("writes %s as %s", (text, written) => {
    const node = read(`v: ${text}`).entries.get("v")?.value;
    expect(node && yamlToText(node)).toBe(written);
  });
});
