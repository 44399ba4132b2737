// Adding a component is one file: docs/adding-a-component.md is done step by step in a copy of the tree.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SecretStore } from "../../../src/blocks/secrets/port.ts";
import { checkout, nodeBinary, startNats, startSidecar, tempDir, type TempDir } from "../../kit/index.ts";
import { secretStoreContract } from "../../contract/secretstore.ts";
import { silentLog } from "../../contract/silent-log.ts";

const page = readFileSync(join(checkout, "docs", "adding-a-component.md"), "utf8");
const fenceOf = (language: string): string =>
  new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, "m").exec(page)?.[1] ?? "";
const componentPath =
  /^In `(src\/components\/\w+\/)`, the file `([\w-]+\.ts)`/m.exec(page)?.slice(1).join("") ?? "";

type SecretStoreFile = { open(context: unknown): Promise<SecretStore> };

let folder: TempDir;
const run = (...args: string[]): string => {
  const { status, stdout, stderr } = spawnSync(nodeBinary(), args, { cwd: folder.path, encoding: "utf8" });
  if (status !== 0) throw new Error(`node ${args.join(" ")} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
};

beforeAll(() => {
  folder = tempDir("adding");
  for (const name of ["src", "mesh", "scripts", "proto/gen", "docs/components", "test/contract"])
    cpSync(join(checkout, name), folder.join(name), { recursive: true });
  for (const name of ["package.json", "tsconfig.json"]) cpSync(join(checkout, name), folder.join(name));
  symlinkSync(join(checkout, "node_modules"), folder.join("node_modules"));
  writeFileSync(folder.join(componentPath), fenceOf("ts"));
});
afterAll(async () => {
  await folder?.[Symbol.asyncDispose]();
});

test("the file passes the types of the tree", { timeout: 240_000 }, () => {
  const only = { extends: "./tsconfig.json", include: [], files: [componentPath] };
  writeFileSync(folder.join("tsconfig.one.json"), JSON.stringify(only));
  run("node_modules/typescript/bin/tsc", "-p", "tsconfig.one.json");
});

test("npm run gen adds it to the list and writes its page", () => {
  expect(run("scripts/gen.ts")).toContain("docs/components/secretstores.folder.md written");
  const list = readFileSync(folder.join("src/components/index.gen.ts"), "utf8");
  expect(list).toContain('{ type: "secretstores.folder", load: () => import("./secrets/folder.ts") }');
  const written = readFileSync(folder.join("docs/components/secretstores.folder.md"), "utf8");
  expect(written).toContain("Each file in a folder is a secret");
  expect(written).toContain("| `path` | text | required | The folder. |");
});

test("a sidecar uses it as the page says", { timeout: 120_000 }, async () => {
  run("scripts/gen.ts");
  const secrets = folder.join("secrets");
  mkdirSync(secrets, { recursive: true });
  writeFileSync(join(secrets, "db-password"), "p\n");
  await using nats = await startNats();
  const resource = fenceOf("yaml").replace("/run/secrets", secrets);
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    command: [nodeBinary(), folder.join("src/main.ts")],
    readyTimeoutMs: 60_000,
    resources: { "vault.yaml": resource },
  });
  expect((await sidecar.get("/v1.0/secrets/vault/db-password")).json()).toEqual({ "db-password": "p" });
  expect((await sidecar.get("/v1.0/secrets/vault/..%2Fpackage.json")).status).toBe(500);
});

secretStoreContract(
  "secretstores.folder",
  { multiValued: false, missing: /^secret .* not found$/ },
  async (secrets) => {
    const path = folder.join("contract");
    mkdirSync(path, { recursive: true });
    for (const [name, secret] of Object.entries(secrets)) writeFileSync(join(path, name), secret[name] ?? "");
    const file = (await import(folder.join(componentPath))) as SecretStoreFile;
    const store = await file.open({ metadata: { path, trim: false }, log: silentLog });
    return { store, close: () => store.close() };
  },
);
