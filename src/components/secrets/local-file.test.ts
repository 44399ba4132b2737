import { writeFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { tempDir } from "../../../test/kit/temp-dir.ts";
import type { Secret } from "../../blocks/secrets/port.ts";
import { readMetadata } from "../metadata.ts";
import { metadataSchema, open } from "./local-file.ts";

const folder = tempDir("local-file");
afterAll(() => folder[Symbol.asyncDispose]());

async function all(text: string, properties: Record<string, string> = {}): Promise<Record<string, Secret>> {
  const secretsFile = folder.join("secrets.json");
  writeFileSync(secretsFile, text);
  return openFile({ secretsFile, ...properties });
}

async function openFile(properties: Record<string, string>): Promise<Record<string, Secret>> {
  const { values } = readMetadata(metadataSchema, "secretstores", properties);
  const rest = { mesh: undefined as never, clock: undefined as never, log: silentLog, env: {} };
  const who = { name: "s", type: "t", version: "v1", appId: "a", namespace: "n" };
  const store = await open({
    ...who,
    ...rest,
    metadata: values,
    properties,
    signal: new AbortController().signal,
  });
  return { ...(await store.getAll({}, new AbortController().signal)) };
}

const nested = '{"top":"t","redis":{"user":"u","hosts":["a","b"],"deep":{"n":3}},"odd":[true,null,1.5]}';

describe("secretstores.local.file", () => {
  it("makes a secret of every value at the end of a path", async () => {
    expect(await all(nested)).toEqual({
      top: { top: "t" },
      "redis:user": { "redis:user": "u" },
      "redis:hosts:0": { "redis:hosts:0": "a" },
      "redis:hosts:1": { "redis:hosts:1": "b" },
      "redis:deep:n": { "redis:deep:n": "%!s(float64=3)" },
      "odd:0": { "odd:0": "%!s(bool=true)" },
      "odd:1": { "odd:1": "%!s(<nil>)" },
      "odd:2": { "odd:2": "%!s(float64=1.5)" },
    });
  });

  it("joins names with nestedSeparator", async () => {
    expect(Object.keys(await all('{"a":{"b":{"c":"x"}}}', { nestedSeparator: "." }))).toEqual(["a.b.c"]);
  });

  it("makes one secret of each member with multiValued, and passes over lists and numbers", async () => {
    expect(await all(nested, { multiValued: "yes" })).toEqual({
      top: { top: "t" },
      redis: { user: "u", "hosts:0": "a", "hosts:1": "b", "deep:n": "%!s(float64=3)" },
    });
  });

  it.each([
    ["[1]", /secrets\.json must hold one JSON object such as/],
    ['{"a":', /secrets\.json is no JSON: unexpected end of JSON input/],
    ["", /secrets\.json is no JSON/],
    [`{"a":${"[".repeat(200)}1${"]".repeat(200)}}`, /nested deeper than 100 levels/],
  ])("refuses %j", async (text, message) => {
    await expect(all(text)).rejects.toThrow(message);
  });

  it("names a file that is not there, and the field that is missing", async () => {
    const path = folder.join("nowhere.json");
    await expect(openFile({ secretsFile: path })).rejects.toThrow(
      `metadata field "secretsFile": ${path} cannot be read: ENOENT`,
    );
    await expect(openFile({})).rejects.toThrow('metadata field "secretsFile" is required');
  });
});
