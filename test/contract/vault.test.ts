// What the Vault store does beyond the contract of all secret stores: prefixes, versions, both kinds of values, and
// what it says and does when Vault refuses, is sealed, away, or behind another certificate.
import { rename, writeFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { SecretStore } from "../../src/blocks/secrets/port.ts";
import { metadataSchema, open } from "../../src/components/secrets/hashicorp-vault.ts";
import { certificateAuthority } from "../kit/certificates.ts";
import { eventually, tempDir } from "../kit/index.ts";
import { rootToken, startVault, type Vault } from "../kit/servers/vault.ts";
import { secretContext } from "./secret-context.ts";

const stack = new AsyncDisposableStack();
const signal = new AbortController().signal;
const opened: SecretStore[] = [];
let vault: Vault;

beforeAll(async () => {
  vault = stack.use(await startVault());
  await vault.write("dapr/db", { user: "ann", password: "p<w>d" });
  await vault.write("dapr/db", { user: "bob", note: null });
  await vault.write("dapr/team/redis", { url: "r" });
  await vault.write("top", { a: "b" });
}, 60_000);
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(() => stack.disposeAsync());

async function openWith(properties: Record<string, string> = {}): Promise<SecretStore> {
  const token = properties["vaultTokenMountPath"] === undefined ? { vaultToken: rootToken } : {};
  const all = { vaultAddr: vault.url, ...token, ...properties };
  const store = await open(secretContext(metadataSchema, all));
  opened.push(store);
  return store;
}

const get = (store: SecretStore, name: string, metadata = {}) => store.get(name, metadata, signal);

test("reads below the prefix, another one, or none", async () => {
  expect(await get(await openWith(), "team/redis")).toEqual({ url: "r" });
  expect(await get(await openWith({ vaultKVPrefix: "/dapr/team/" }), "redis")).toEqual({ url: "r" });
  const bare = await openWith({ vaultKVUsePrefix: "false" });
  expect(await get(bare, "top")).toEqual({ a: "b" });
  const all = await bare.getAll({}, signal);
  expect(Object.keys(all).toSorted()).toEqual(["dapr/db", "dapr/team/redis", "top"]);
  expect(await (await openWith()).getAll({}, signal)).toEqual({
    db: { user: "bob", note: "" },
    "team/redis": { url: "r" },
  });
});

test("gives the version that is asked for, and nothing of one that was deleted", async () => {
  const store = await openWith();
  expect(await get(store, "db", { version_id: "1" })).toEqual({ user: "ann", password: "p<w>d" });
  await expect(get(store, "db", { version_id: "9" })).rejects.toThrow(
    "getSecret db failed secret key or version not exist",
  );
  await expect(get(store, "db", { version_id: "last" })).rejects.toThrow('not "last"');
  await vault.write("dapr/gone", { a: "1" });
  await vault.write("dapr/gone", { a: "2" });
  await vault.call("DELETE", "secret/data/dapr/gone");
  await expect(get(store, "gone")).rejects.toThrow("getSecret gone failed secret key or version not exist");
  expect(await get(store, "gone", { version_id: "1" })).toEqual({ a: "1" });
  expect(Object.keys(await store.getAll({}, signal))).not.toContain("gone");
  await vault.call("DELETE", "secret/metadata/dapr/gone");
});

test("takes texts only, or the whole secret as one text", async () => {
  await vault.write("odd/port", { "10": "x", "9": 6379, deep: { a: 1.5 }, big: 12345678901234567000 });
  const map = await openWith({ vaultKVPrefix: "odd" });
  await expect(get(map, "port")).rejects.toThrow(
    "field 9 of secret port is of type number, no text; write it as text, or set vaultValueType to text",
  );
  await expect(map.getAll({}, signal)).rejects.toThrow("field 9 of secret port");
  const text = await openWith({ vaultKVPrefix: "odd", vaultValueType: "text" });
  const whole = '{"10":"x","9":6379,"big":12345678901234567000,"deep":{"a":1.5}}';
  expect(await get(text, "port")).toEqual({ port: whole });
  expect(await text.getAll({}, signal)).toEqual({ port: { port: whole } });
  expect(text.capabilities).toEqual([]);
});

test("never leads to another part of the API", async () => {
  const store = await openWith();
  for (const name of ["../../top", "a/../../top", "../../../sys/health", "/db", "db/", "a//b", "."])
    await expect(get(store, name)).rejects.toThrow(`getSecret ${name} failed`);
  await expect(get(store, "db?version=1")).rejects.toThrow("not exist");
});

test("says what the token may not do, and takes up another one from its file", async () => {
  await using folder = tempDir("vault");
  const path = folder.join("token");
  await vault.call("POST", "sys/policies/acl/reader", { rules: { "secret/data/dapr/": ["read"] } });
  await vault.call("POST", "auth/token/create", { id: "reader-token", policies: ["reader"] });
  await writeFile(path, "reader-token\n");
  const store = await openWith({ vaultTokenMountPath: path });
  expect(await get(store, "team/redis")).toEqual({ url: "r" });
  const denied = await store.getAll({}, signal).catch((error: Error) => error.message);
  expect(denied).toMatch(
    /^Vault refuses it \(403, .*permission denied\).* policy that may list secret\/metadata\/dapr/,
  );
  expect(denied).not.toContain("reader-token");
  await vault.call("POST", "auth/token/revoke", { token: "reader-token" });
  await expect(get(store, "db")).rejects.toThrow(/403, .*invalid token\): its token must be valid/);
  // As an agent of Vault or Kubernetes exchanges it.
  await writeFile(`${path}.new`, rootToken);
  await rename(`${path}.new`, path);
  expect(await get(store, "team/redis")).toEqual({ url: "r" });
});

test("waits for a Vault that is sealed, and comes back when it was away", async () => {
  const store = await openWith();
  await vault.call("POST", "sys/seal");
  await expect(get(store, "db")).rejects.toThrow("Vault is sealed (503): unseal it");
  await vault.call("POST", "sys/unseal");
  expect(await get(store, "team/redis")).toEqual({ url: "r" });
  await vault.kill();
  await expect(get(store, "db")).rejects.toThrow(
    /^http:\/\/127\.0\.0\.1:\d+: .*; see whether Vault runs there, or correct vaultAddr$/,
  );
  const late = await openWith();
  await vault.restart();
  await eventually(async () => expect(await get(store, "team/redis")).toEqual({ url: "r" }));
  await eventually(async () => expect(await get(late, "team/redis")).toEqual({ url: "r" }));
}, 60_000);

test("asks the active node that a standby names", async () => {
  await using standby = await startVault();
  await standby.call("POST", "test/standby", { active: vault.url });
  const store = await openWith({ vaultAddr: standby.url });
  expect(await get(store, "team/redis")).toEqual({ url: "r" });
  expect(Object.keys(await store.getAll({}, signal))).toContain("team/redis");
}, 60_000);

test("names an engine that is not there", async () => {
  await expect(get(await openWith({ enginePath: "kv" }), "db")).rejects.toThrow(
    "getSecret db failed secret key or version not exist: Vault has no engine at kv; correct enginePath",
  );
});

test("trusts what it is told to trust", async () => {
  await using authority = await certificateAuthority();
  await using folder = tempDir("vault-tls");
  await using served = await startVault(await authority.issue("vault", ["vault.internal"]));
  await served.write("dapr/db", { a: "b" });
  const ask = async (properties: Record<string, string>) =>
    get(await openWith({ vaultAddr: served.url, ...properties }), "db");
  await expect(ask({})).rejects.toThrow(
    "give the authority of Vault's certificate in caPem, caPath or caCert",
  );
  await expect(ask({ caPem: authority.root })).rejects.toThrow(
    "give the name that Vault's certificate is for in tlsServerName",
  );
  const tlsServerName = "vault.internal";
  expect(await ask({ caPem: authority.root, tlsServerName })).toEqual({ a: "b" });
  expect(await ask({ caCert: authority.rootFile, tlsServerName })).toEqual({ a: "b" });
  await writeFile(folder.join("a.pem"), authority.root);
  await writeFile(folder.join("b.pem"), "not looked at");
  expect(await ask({ caPath: folder.path, caCert: "/nowhere", tlsServerName })).toEqual({ a: "b" });
  expect(await ask({ skipVerify: "true" })).toEqual({ a: "b" });
  // An authority whose file is exchanged while the store is open.
  await using other = await certificateAuthority("other");
  await writeFile(folder.join("a.pem"), other.root);
  const store = await openWith({ vaultAddr: served.url, caPath: folder.path, tlsServerName });
  await expect(get(store, "db")).rejects.toThrow("give the authority");
  await writeFile(folder.join("a.pem"), authority.root);
  expect(await get(store, "db")).toEqual({ a: "b" });
}, 60_000);

test.each([
  [{}, 'exactly one of "vaultToken" and "vaultTokenMountPath" must be set, but neither is given'],
  [{ vaultToken: "a", vaultTokenMountPath: "/b" }, "but both are given"],
  [{ vaultTokenMountPath: "/nowhere/token" }, '"vaultTokenMountPath": /nowhere/token cannot be read: ENOENT'],
  [{ vaultToken: "a b" }, '"vaultToken": it holds no token of Vault'],
  [{ vaultToken: "a", vaultAddr: "127.0.0.1:8200" }, "is no http:// or https:// address"],
  [{ vaultToken: "a", caPem: "x" }, '"caPem": it holds no certificate in PEM form'],
  [{ vaultToken: "a", caCert: "/nowhere.pem" }, '"caCert": /nowhere.pem cannot be read'],
  [{ vaultToken: "a", caPath: "/nowhere" }, '"caPath": /nowhere cannot be read'],
  [{ vaultToken: "a", vaultValueType: "list" }, "vaultValueType"],
])("refuses %j", async (properties, message) => {
  const opening = async () => open(secretContext(metadataSchema, properties));
  await expect(opening()).rejects.toThrow(message);
});
