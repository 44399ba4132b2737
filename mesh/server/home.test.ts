import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { locateHome, openHome } from "./home.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-home-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const user = process.getuid?.();

test.each([
  { name: "the option first", options: { home: "/a", env: { WEFT_HOME: "/b", HOME: "/c" } }, path: "/a" },
  { name: "then WEFT_HOME", options: { env: { WEFT_HOME: "/b", HOME: "/c" } }, path: "/b" },
  { name: "then HOME", options: { env: { HOME: "/c" } }, path: "/c/.weft" },
  { name: "empty is not given", options: { home: "", env: { WEFT_HOME: "", HOME: "/c" } }, path: "/c/.weft" },
  { name: "else a folder of the user", options: { env: { TMPDIR: "/t" } }, path: `/t/weft-${user}` },
  { name: "with nothing at all", options: { env: {} }, path: join(tmpdir(), `weft-${user}`) },
])("$name", ({ options, path }) => {
  expect(locateHome(options).path).toBe(path);
});

test("makes private folders", () => {
  const home = openHome({ env: { HOME: folder } });
  expect(home.path).toBe(join(folder, ".weft"));
  for (const path of [home.path, home.binFolder, home.dataFolder])
    expect(statSync(path).mode & 0o777).toBe(0o700);
});

test("two names of one folder are one server, two folders are two", () => {
  mkdirSync(join(folder, "real"));
  symlinkSync(join(folder, "real"), join(folder, "link"));
  const name = (path: string): string => openHome({ home: join(folder, path), env: {} }).serverName;
  expect(name("link")).toBe(name("real"));
  expect(name("other")).not.toBe(name("real"));
});

test("a home that cannot be made is an error with the fix", () => {
  writeFileSync(join(folder, "file"), "");
  const open = (): unknown => openHome({ env: { HOME: join(folder, "file") } });
  expect(open).toThrow(/cannot write to its folder .*\/file\/\.weft: ENOTDIR.*WEFT_HOME.*WEFT_NATS_URL/);
});

test("without HOME, a folder that others can enter is refused", () => {
  const path = join(folder, `weft-${user}`);
  mkdirSync(path);
  chmodSync(path, 0o755);
  expect(() => openHome({ env: { TMPDIR: folder } })).toThrow(/open to other users \(mode 755, wanted 700\)/);
  chmodSync(path, 0o700);
  expect(openHome({ env: { TMPDIR: folder } }).path).toBe(path);
});

test("without HOME, a link in place of the folder is refused", () => {
  mkdirSync(join(folder, "elsewhere"));
  symlinkSync(join(folder, "elsewhere"), join(folder, `weft-${user}`));
  expect(() => openHome({ env: { TMPDIR: folder } })).toThrow(/not a plain folder/);
});
