import { expect, test } from "vitest";
import { limitsFor, readConfigPort, writeConfig } from "./config.ts";
import { locateHome } from "./home.ts";

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const limits = { fileBytes: GiB, memoryBytes: MiB };

function configOf(path: string, version = "2.15.1"): string {
  return writeConfig({ home: locateHome({ home: path, env: {} }), port: 4223, version, limits });
}

test("listens on loopback only, and the port can be read back", () => {
  const text = configOf("/nowhere/w");
  expect(text).toContain('host: "127.0.0.1"\nport: 4223\n');
  expect(readConfigPort(text)).toBe(4223);
  expect(readConfigPort("port: none")).toBeUndefined();
});

test("a folder name with quotes and backslashes stays one string", () => {
  expect(configOf('/nowhere/a "b" \\c')).toContain('store_dir: "/nowhere/a \\"b\\" \\\\c/nats/data"');
});

test("a folder name with a line break is refused", () => {
  expect(() => configOf("/nowhere/a\nport: 1")).toThrow(/control characters.*WEFT_HOME/);
});

test("2.14 does not know the limit on consumers and would refuse it", () => {
  expect(configOf("/nowhere/w", "2.14.3")).not.toContain("default_max_consumers");
  expect(configOf("/nowhere/w", "2.15.0")).toContain("default_max_consumers");
});

test.each([
  { name: "half of the disk", freeBytes: 10 * GiB, usedBytes: 0, fileBytes: 5 * GiB },
  { name: "data in the store count as room", freeBytes: 2 * GiB, usedBytes: 6 * GiB, fileBytes: 4 * GiB },
  { name: "at most 20 GiB", freeBytes: 900 * GiB, usedBytes: 0, fileBytes: 20 * GiB },
  { name: "at least 64 MiB", freeBytes: 0, usedBytes: 0, fileBytes: 64 * MiB },
])("room for files: $name", ({ freeBytes, usedBytes, fileBytes }) => {
  expect(limitsFor({ freeBytes, usedBytes, memoryBytes: 16 * GiB })).toEqual({ fileBytes, memoryBytes: GiB });
});

test("a small machine gives an eighth of its memory", () => {
  expect(limitsFor({ freeBytes: 0, usedBytes: 0, memoryBytes: 2 * GiB }).memoryBytes).toBe(256 * MiB);
});
