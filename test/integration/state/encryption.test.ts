// Encryption at rest with keys of a secret store: what lies in the file is not what the app saved.
import { createCipheriv } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { startNats, startSidecar, tempDir } from "../../kit/index.ts";

const keys = { first: "0f".repeat(16), second: "e1".repeat(32) };

function resources(secretsFile: string, database: string, primary: string): Record<string, string> {
  const store = (name: string, extra: string): string =>
    `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: ${name} }\n${extra}`;
  return {
    "secrets.yaml": store(
      "secrets",
      `spec:\n  type: secretstores.local.file\n  version: v1\n  metadata:\n` +
        `  - { name: secretsFile, value: ${JSON.stringify(secretsFile)} }\n`,
    ),
    "store.yaml": store(
      "store",
      `auth: { secretStore: secrets }\nspec:\n  type: state.sqlite\n  version: v1\n  metadata:\n` +
        `  - { name: connectionString, value: ${JSON.stringify(database)} }\n` +
        `  - { name: primaryEncryptionKey, secretKeyRef: { name: ${primary} } }\n` +
        `  - { name: secondaryEncryptionKey, secretKeyRef: { name: first } }\n`,
    ),
  };
}

/** The record in the file, which SQLite holds in base64. */
function stored(file: string, key: string): string {
  using database = new DatabaseSync(file);
  const row = database.prepare("SELECT value, is_binary FROM state WHERE key = ?").get(`shop||${key}`);
  expect(row!["is_binary"]).toBe(1);
  return Buffer.from(row!["value"] as string, "base64").toString();
}

test("values are encrypted in the store, and keys change without a break", async () => {
  await using folder = tempDir("encryption");
  await using nats = await startNats();
  const [secretsFile, file] = [folder.join("secrets.json"), folder.join("state.db")];
  await writeFile(secretsFile, JSON.stringify(keys));
  const path = "/v1.0/state/store";
  {
    await using sidecar = await startSidecar({
      appId: "shop",
      nats,
      resources: resources(secretsFile, file, "first"),
    });
    expect((await sidecar.post(path, [{ key: "card", value: { number: "4711" } }])).status).toBe(204);
    expect((await sidecar.get(`${path}/card`)).text).toBe('{"number":"4711"}');
    expect(stored(file, "card")).toMatch(/^[A-Za-z0-9+/]+=*\|\|first$/);
  }
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: resources(secretsFile, file, "second"),
  });
  expect((await sidecar.get(`${path}/card`)).text).toBe('{"number":"4711"}');
  expect((await sidecar.post(path, [{ key: "card", value: 1 }])).status).toBe(204);
  expect(stored(file, "card")).toMatch(/\|\|second$/);
  // A row as another program that follows the format leaves it.
  const cipher = createCipheriv("aes-256-gcm", Buffer.from(keys.second, "hex"), Buffer.alloc(12, 7));
  const sealed = [Buffer.alloc(12, 7), cipher.update("[1,2]"), cipher.final(), cipher.getAuthTag()];
  const record = Buffer.from(`${Buffer.concat(sealed).toString("base64")}||second`);
  {
    using database = new DatabaseSync(file);
    database
      .prepare("INSERT INTO state (key, value, is_binary, etag) VALUES ('shop||theirs', ?, 1, 'e')")
      .run(record.toString("base64"));
  }
  expect((await sidecar.get(`${path}/theirs`)).json()).toEqual([1, 2]);
});

test("a key that cannot be found ends the start: nothing is saved in clear", async () => {
  await using folder = tempDir("encryption");
  await using nats = await startNats();
  const secretsFile = folder.join("secrets.json");
  await writeFile(secretsFile, JSON.stringify(keys));
  const files = resources(secretsFile, folder.join("state.db"), "third");
  const starting = startSidecar({ appId: "shop", nats, resources: files });
  await expect(starting).rejects.toThrow("metadata primaryEncryptionKey");
});
