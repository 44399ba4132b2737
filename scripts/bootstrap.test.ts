import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { modulesMatchLock } from "./bootstrap.mjs";

type Packages = Readonly<Record<string, { version: string; integrity?: string; optional?: boolean }>>;

function checkout(wanted: Packages, present: Packages | undefined): string {
  const folder = mkdtempSync(join(tmpdir(), "weft-bootstrap-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "package-lock.json"), JSON.stringify({ packages: { "": {}, ...wanted } }));
  mkdirSync(join(folder, "node_modules"));
  const installed = join(folder, "node_modules", ".package-lock.json");
  if (present !== undefined) writeFileSync(installed, JSON.stringify({ packages: present }));
  return folder;
}

const a = { version: "1.0.0", integrity: "sha512-a" };

it.each<[string, Packages, Packages | undefined, boolean]>([
  ["nothing installed", { a }, undefined, false],
  ["the same", { a }, { a }, true],
  ["more than wanted", { a }, { a, b: a }, true],
  ["another version", { a }, { a: { ...a, version: "1.0.1" } }, false],
  ["another content", { a }, { a: { ...a, integrity: "sha512-b" } }, false],
  ["a missing package", { a, b: a }, { a }, false],
  ["a missing package of another platform", { a, b: { ...a, optional: true } }, { a }, true],
])("node_modules with %s", (_what, wanted, present, matches) => {
  expect(modulesMatchLock(checkout(wanted, present))).toBe(matches);
});
