// Every bad resource gives one line that lets a person fix it: a table of wrong files through the loader, and a sample
// of them through real sidecars.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, type Nats, type Sidecar, startNats, startSidecar } from "../../kit/index.ts";
import { linesOf } from "./lines.ts";
import { type WrongFile, wrongFiles } from "./wrong-files.ts";

const filesOf = ({ resources = {} }: WrongFile): Readonly<Record<string, string>> =>
  typeof resources === "string" ? { "f.yaml": resources } : resources;

test("the table holds at least 60 files, none twice", () => {
  expect(wrongFiles.length).toBeGreaterThanOrEqual(60);
  expect(new Set(wrongFiles.map(({ what }) => what)).size).toBe(wrongFiles.length);
});

describe("one line for", () => {
  test.each(wrongFiles.map((file) => [file.what, file] as const))("%s", async (_, file) => {
    const lines = await linesOf(filesOf(file), file.config === undefined ? {} : { "c.yaml": file.config });
    expect(lines).toEqual([expect.stringMatching(file.line)]);
  });
});

describe("in a real sidecar", () => {
  let nats: Nats;
  beforeAll(async () => {
    nats = await startNats();
  });
  afterAll(async () => {
    await nats?.[Symbol.asyncDispose]();
  });

  /** Messages of the log, files without their folder. */
  const messagesOf = (sidecar: Sidecar): string[] =>
    sidecar
      .logs()
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => (JSON.parse(line) as { msg: string }).msg)
      .map((text) =>
        text.replaceAll(`${sidecar.resourcesPath}/`, "").replaceAll(/\S*\/config\.yaml/g, "c.yaml"),
      );
  const flags = ["--log-as-json"];

  test("all files that do not end the start give their lines in one log, and nothing else is harmed", async () => {
    // Two endpoints of one name keep all others out.
    const alone = "one name for two endpoints";
    const harmless = wrongFiles.filter(
      ({ fatal, config, what }) => fatal === undefined && config === undefined && what !== alone,
    );
    const resources: Record<string, string> = { "good.yaml": goodStore };
    // A number at each file's and resource's name, so that they do not meet.
    for (const [index, file] of harmless.entries()) {
      for (const [name, text] of Object.entries(filesOf(file)))
        resources[`${index}-${name}`] = text.replaceAll(/^ {2}name: x$/gm, `  name: x${index}`);
    }
    await using sidecar = await startSidecar({ appId: "shop", nats, resources, flags });
    await eventually(() => {
      const messages = messagesOf(sidecar);
      for (const [index, file] of harmless.entries()) {
        const own = messages.filter((text) => new RegExp(`(^|[^0-9])${index}-f\\.`).test(text));
        const bare = own.map((text) =>
          text.replaceAll(`${index}-f.`, "f.").replaceAll(new RegExp(`\\bx${index}\\b`, "g"), "x"),
        );
        expect(bare).toContainEqual(expect.stringMatching(file.line));
      }
    });
    await sidecar.post("/v1.0/state/good", [{ key: "k", value: 1 }]);
    expect((await sidecar.get("/v1.0/state/good/k")).text).toBe("1");
  });

  const names = ["a misspelt product", "a category that is none", "a required field that is missing"];
  names.push("one name for two components", "a key prefix with ||", "an access that is none");
  const sample = wrongFiles.filter(({ what, fatal }) => fatal && names.includes(what));
  test.each(sample.map((file) => [file.what, file] as const))("%s ends the start", async (_, file) => {
    const config = file.config === undefined ? {} : { config: file.config };
    const resources = filesOf(file);
    await using sidecar = await startSidecar({
      appId: "shop",
      nats,
      resources,
      flags,
      ...config,
      wait: "none",
    });
    expect(await sidecar.exited).toBe(1);
    const last = messagesOf(sidecar).at(-1) ?? "";
    expect(last).toMatch(/^Fatal error from runtime: /);
    expect(last.replace("Fatal error from runtime: ", "")).toMatch(file.line);
  });
});

const goodStore = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: good
spec:
  type: state.in-memory
  version: v1
`;
