// What the Kubernetes store does beyond the contract of all secret stores: namespaces, both ways to the cluster, and
// what it says and does when credentials change, are refused, or the API is away.
import { writeFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { SecretStore } from "../../src/blocks/secrets/port.ts";
import { metadataSchema, open } from "../../src/components/secrets/kubernetes.ts";
import { eventually, tempDir } from "../kit/index.ts";
import { certificateAuthority } from "../kit/certificates.ts";
import { type Kubernetes, startKubernetes } from "../kit/servers/kubernetes.ts";
import { secretContext } from "./secret-context.ts";

const stack = new AsyncDisposableStack();
const signal = new AbortController().signal;
const opened: SecretStore[] = [];
let cluster: Kubernetes;

beforeAll(async () => {
  cluster = stack.use(await startKubernetes());
  await cluster.create("default", "db", { user: "ann", binary: Buffer.from([0x61, 0xff]) });
  await cluster.create("shop", "db", { user: "bob" });
  await cluster.create("shop", "empty", {});
}, 60_000);
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(() => stack.disposeAsync());

async function openWith(
  properties: Record<string, string>,
  env: Readonly<Record<string, string>> = cluster.podEnv,
): Promise<SecretStore> {
  const store = await open(secretContext(metadataSchema, properties, env), cluster.serviceAccountFolder);
  opened.push(store);
  return store;
}

const get = (store: SecretStore, name: string, metadata = {}) => store.get(name, metadata, signal);

test("finds the namespace in the request, the environment or the component", async () => {
  const store = await openWith({ defaultNamespace: "shop" }, { ...cluster.podEnv, NAMESPACE: "default" });
  expect(await get(store, "db", { namespace: "shop" })).toEqual({ user: "bob" });
  expect(await get(store, "db")).toEqual({ user: "ann", binary: "a\ufffd" });
  const second = await openWith({ defaultNamespace: "shop" });
  expect(await get(second, "db")).toEqual({ user: "bob" });
  expect(await get(second, "empty")).toEqual({});
  expect(await second.getAll({}, signal)).toEqual({ db: { user: "bob" }, empty: {} });
  const neither = await openWith({});
  await expect(get(neither, "db")).rejects.toThrow("no namespace is given: set metadata namespace");
  await expect(neither.getAll({ namespace: "../../x" }, signal)).rejects.toThrow(
    '"../../x" is no name of a namespace',
  );
  await expect(get(second, "nobody")).rejects.toThrow('secrets "nobody" not found');
});

test("gets more secrets than one answer has", async () => {
  const names = Array.from({ length: 120 }, (_, index) => `s-${index}`);
  await Promise.all(names.map((name) => cluster.create("many", name, { name })));
  const all = await (await openWith({ defaultNamespace: "many" })).getAll({}, signal);
  expect(Object.keys(all).toSorted()).toEqual(names.toSorted());
  expect(all["s-77"]).toEqual({ name: "s-77" });
});

test("takes up an exchanged token, and says what an account may not do", async () => {
  const store = await openWith({ defaultNamespace: "default" });
  cluster.rotateToken("second-token", "reader");
  expect(await get(store, "db")).toMatchObject({ user: "ann" });
  const denied = await store.getAll({}, signal).catch((error: Error) => error.message);
  expect(denied).toBe(
    'secrets is forbidden: User "reader" cannot list resource "secrets" in API group "" in the namespace ' +
      '"default" (403); give the account a Role with the verb list on secrets',
  );
  const stale = await openWith({
    defaultNamespace: "default",
    kubeconfigPath: cluster.kubeconfig("{ token: first-token }"),
  });
  const refused = await get(stale, "db").catch((error: Error) => error.message);
  expect(refused).toBe(
    "Kubernetes refuses the credentials (401); renew the token or certificate they come from",
  );
  cluster.rotateToken("third-token", "admin");
  expect(Object.keys(await store.getAll({}, signal))).toEqual(["db"]);
});

test("reaches a cluster as a kubeconfig file says", async () => {
  await using folder = tempDir("kubeconfig");
  const { certificate, privateKey } = await cluster.authority.issue("reader", ["reader"]);
  await writeFile(folder.join("token"), "admin-token\n");
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  const inline = `{ client-certificate-data: ${base64(certificate)}, client-key-data: ${base64(privateKey)} }`;
  const inlineCluster =
    `{ server: "https://${cluster.address}/", tls-server-name: kubernetes.default, ` +
    `certificate-authority-data: ${base64(cluster.authority.root)} }`;
  const unverified = `{ server: "https://${cluster.address}", insecure-skip-tls-verify: true }`;
  for (const kubeconfigPath of [
    cluster.kubeconfig("{ token: admin-token }"),
    cluster.kubeconfig(`{ token: other, tokenFile: ${folder.join("token")} }`),
    cluster.kubeconfig(inline, inlineCluster),
    cluster.kubeconfig("{ token: admin-token }", unverified),
  ]) {
    const store = await openWith({ kubeconfigPath, defaultNamespace: "default" }, {});
    expect(await get(store, "db")).toMatchObject({ user: "ann" });
  }
});

test("says which certificate it does not trust", async () => {
  await using other = await certificateAuthority("other");
  const ask = async (cluster_: string) => {
    const kubeconfigPath = cluster.kubeconfig("{ token: admin-token }", cluster_);
    return get(await openWith({ kubeconfigPath, defaultNamespace: "default" }), "db");
  };
  const server = `server: "https://${cluster.address}"`;
  await expect(ask(`{ ${server}, certificate-authority: ${other.rootFile} }`)).rejects.toThrow(
    "give the cluster's authority in certificate-authority",
  );
  const named = `{ ${server}, certificate-authority: ${cluster.authority.rootFile}, tls-server-name: x }`;
  await expect(ask(named)).rejects.toThrow("in tls-server-name of the kubeconfig file");
});

test("comes back when the API was away", async () => {
  const store = await openWith({ defaultNamespace: "shop" });
  expect(await get(store, "db")).toEqual({ user: "bob" });
  await cluster.kill();
  await expect(get(store, "db")).rejects.toThrow("see whether the API of the cluster is reachable from here");
  await cluster.restart();
  await eventually(async () => expect(await get(store, "db")).toEqual({ user: "bob" }));
}, 60_000);

test("refuses what it cannot work with", async () => {
  await expect(openWith({}, {})).rejects.toThrow(
    "the sidecar does not run in a Kubernetes cluster; set kubeconfigPath to reach one",
  );
  await expect(openWith({ kubeconfigPath: "/nowhere/config" })).rejects.toThrow(
    '"kubeconfigPath": /nowhere/config cannot be read: ENOENT',
  );
  const context = secretContext(metadataSchema, {}, cluster.podEnv);
  await expect(open(context, "/nowhere")).rejects.toThrow(
    /\/nowhere\/(ca\.crt|token) cannot be read: ENOENT.*; let the pod mount the token of its service account/,
  );
  const refused = async (user: string, cluster_?: string) =>
    openWith({ kubeconfigPath: cluster.kubeconfig(user, cluster_) }).then(
      () => "opened",
      (error: Error) => error.message,
    );
  expect(await refused("{ exec: { command: aws } }")).toContain(
    'user "u" has "exec", which is not supported here; use a token or a certificate',
  );
  expect(await refused("{ token: a }", '{ server: "https://a", proxy-url: "http://p" }')).toContain(
    '"proxy-url"',
  );
  expect(await refused("{ token: a }", "{}")).toContain('cluster "c" has no "server" that is an address');
  expect(await refused("{ tokenFile: nowhere }")).toContain("nowhere cannot be read");
  expect(await refused('{ token: "a b" }')).toContain("the token for Kubernetes is empty or no token");
  await using folder = tempDir("kubeconfig");
  for (const [text, message] of [
    ["", "is empty; it must be a kubeconfig file"],
    ["clusters: []", 'has no "current-context"'],
    ["current-context: a", '"contexts" has no entry with the name "a"'],
    ["a: [", "config:1: "],
  ] as const) {
    await writeFile(folder.join("config"), text);
    await expect(openWith({ kubeconfigPath: folder.join("config") })).rejects.toThrow(message);
  }
});
