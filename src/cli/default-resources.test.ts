import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { componentsFolder, defaultConfigFile, ensureDefaultComponents } from "./default-resources.ts";

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "weft-cli-"));
});
afterEach(() => rmSync(home, { recursive: true }));

const names = (folder: string): string[] => readdirSync(folder).toSorted();

it("writes a state store and a message bus on NATS", () => {
  const folder = ensureDefaultComponents(home);
  expect(folder).toBe(componentsFolder(home));
  expect(names(folder)).toEqual(["pubsub.yaml", "statestore.yaml"]);
  expect(readFileSync(join(folder, "statestore.yaml"), "utf8")).toMatch(
    /name: statestore\nspec:\n {2}type: state.nats/,
  );
  expect(readFileSync(join(folder, "pubsub.yaml"), "utf8")).toMatch(
    /name: pubsub\nspec:\n {2}type: pubsub.nats/,
  );
  expect(names(home)).toEqual(["components"]);
});

it("leaves what the user made of them", () => {
  const folder = ensureDefaultComponents(home);
  rmSync(join(folder, "pubsub.yaml"));
  writeFileSync(join(folder, "statestore.yaml"), "mine");
  ensureDefaultComponents(home);
  expect(names(folder)).toEqual(["statestore.yaml"]);
  expect(readFileSync(join(folder, "statestore.yaml"), "utf8")).toBe("mine");
});

it.each([[[]], [["notes.txt"]]])("fills a folder that holds only %j", (others) => {
  const folder = componentsFolder(home);
  mkdirSync(folder);
  for (const name of others) writeFileSync(join(folder, name), "");
  ensureDefaultComponents(home);
  expect(names(folder)).toEqual([...others, "pubsub.yaml", "statestore.yaml"].toSorted());
  expect(names(home)).toEqual(["components"]);
});

it("takes a Configuration only when it is there", () => {
  expect(defaultConfigFile(home)).toBeUndefined();
  writeFileSync(join(home, "config.yaml"), "");
  expect(defaultConfigFile(home)).toBe(join(home, "config.yaml"));
});
