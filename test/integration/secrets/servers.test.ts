// Vault and Kubernetes as secret stores of real sidecars: the secrets API, references of other components, outages, and
// the store that Kubernetes mode brings along.
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, type Nats, startNats, startSidecar, tempDir } from "../../kit/index.ts";
import { type Kubernetes, startKubernetes } from "../../kit/servers/kubernetes.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { startVault, type Vault } from "../../kit/servers/vault.ts";
import { component } from "./resources.ts";

const stack = new AsyncDisposableStack();
let nats: Nats;
let vault: Vault;
let cluster: Kubernetes;

beforeAll(async () => {
  nats = stack.use(await startNats());
  vault = stack.use(await startVault());
  cluster = stack.use(await startKubernetes());
  await vault.call("POST", "auth/token/create", { id: "the-vault-token", policies: ["app"] });
  const rules = { "secret/data/dapr/": ["read"], "secret/metadata/dapr": ["list"] };
  await vault.call("POST", "sys/policies/acl/app", { rules });
});
afterAll(() => stack.disposeAsync());

/** A Redis store whose password is a secret. */
const redisStore = (redisHost: string, auth: string): string => `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: statestore }
spec:
  type: state.redis
  version: v1
  metadata:
  - { name: redisHost, value: "${redisHost}" }
  - name: redisPassword
    secretKeyRef: { name: redis, key: password }
${auth}`;

test("the password of a store comes from Vault, whose token never appears", async () => {
  await using folder = tempDir("token");
  await using redis = await startRedis({ requirepass: "s3cret" });
  writeFileSync(folder.join("token"), "the-vault-token");
  await vault.write("dapr/redis", { password: "s3cret" });
  const properties = { vaultAddr: vault.url, vaultTokenMountPath: folder.join("token") };
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: {
      "a.yaml": redisStore(redis.address, "auth: { secretStore: vault }\n"),
      "z.yaml": component("vault", "secretstores.hashicorp.vault", properties),
    },
  });
  expect((await sidecar.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
  expect((await sidecar.get("/v1.0/state/statestore/k")).text).toBe("1");
  expect((await sidecar.get("/v1.0/secrets/vault/redis?metadata.version_id=1")).json()).toEqual({
    password: "s3cret",
  });
  expect((await sidecar.get("/v1.0/secrets/vault/bulk")).json()).toEqual({ redis: { password: "s3cret" } });
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: { name: string }[] }>();
  expect(components.find(({ name }) => name === "vault")).toEqual({
    name: "vault",
    type: "secretstores.hashicorp.vault",
    version: "v1",
    capabilities: ["MULTIPLE_KEY_VALUES_PER_SECRET"],
  });
  const missing = await sidecar.get("/v1.0/secrets/vault/nobody");
  expect([missing.status, missing.json()]).toEqual([
    500,
    {
      errorCode: "ERR_SECRET_GET",
      message:
        "failed getting secret with key nobody from secret store vault: " +
        "getSecret nobody failed secret key or version not exist",
    },
  ]);
  await vault.call("POST", "auth/token/revoke", { token: "the-vault-token" });
  const refused = await sidecar.get("/v1.0/secrets/vault/redis");
  expect(refused.status).toBe(500);
  expect(refused.text).toContain(
    "its token must be valid, with a policy that may read secret/data/dapr/redis",
  );
  expect(sidecar.logs() + refused.text + vault.logs()).not.toContain("the-vault-token");
});

test("a Vault that is away is told, and what it could not serve comes when it is back", async () => {
  await using redis = await startRedis({ requirepass: "s3cret" });
  await using away = await startVault();
  await away.write("dapr/redis", { password: "s3cret" });
  await away.kill();
  const properties = { vaultAddr: away.url, vaultToken: "root-token" };
  const store = redisStore(redis.address, "auth: { secretStore: vault }\n").replace(
    "  version: v1\n",
    "  version: v1\n  ignoreErrors: true\n",
  );
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: { "a.yaml": store, "z.yaml": component("vault", "secretstores.hashicorp.vault", properties) },
  });
  expect(sidecar.logs()).toMatch(/getting secret redis from vault failed: .*see whether Vault runs there/);
  const extended = async () =>
    (await sidecar.get("/v1.0/metadata")).json<{ extended: Record<string, string> }>().extended;
  expect((await extended())["weft.component.vault"]).toMatch(/^away since /);
  expect((await sidecar.get("/v1.0/healthz/components")).status).toBe(500);
  await away.restart();
  await eventually(async () => expect(await extended()).not.toHaveProperty(["weft.component.vault"]), {
    timeoutMs: 30_000,
  });
  expect((await sidecar.get("/v1.0/secrets/vault/redis")).json()).toEqual({ password: "s3cret" });
  await eventually(async () => expect((await sidecar.get("/v1.0/healthz/components")).status).toBe(204), {
    timeoutMs: 60_000,
  });
  expect((await sidecar.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
});

test("Kubernetes mode: references without a store go to the cluster, in the component's namespace", async () => {
  await using redis = await startRedis({ requirepass: "k8s" });
  await cluster.create("shop", "redis", { password: "k8s" });
  await cluster.create("other", "redis", { password: "wrong" });
  const kubeconfigPath = cluster.kubeconfig("{ token: first-token }");
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    flags: ["--mode", "kubernetes"],
    env: { NAMESPACE: "shop" },
    resources: {
      "a.yaml": redisStore(redis.address, ""),
      "z.yaml": component("kubernetes", "secretstores.kubernetes", { kubeconfigPath }),
    },
  });
  expect((await sidecar.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
  const secret = async (query: string) =>
    (await sidecar.get(`/v1.0/secrets/kubernetes/redis${query}`)).json();
  expect(await secret("")).toEqual({ password: "k8s" });
  expect(await secret("?metadata.namespace=other")).toEqual({ password: "wrong" });
  expect((await sidecar.get("/v1.0/secrets/kubernetes/bulk")).json()).toEqual({ redis: { password: "k8s" } });
  expect(sidecar.logs()).not.toContain("first-token");
});

test("the store that Kubernetes mode brings along is told when it cannot be opened, and can be left out", async () => {
  const flags = ["--mode", "kubernetes"];
  const start = (more: readonly string[], env: Record<string, string>) =>
    startSidecar({ appId: "shop", nats, resources: {}, flags: [...flags, ...more], env });
  await using sidecar = await start([], cluster.podEnv);
  expect(sidecar.logs()).toMatch(
    /Ignoring error processing component: .*let the pod mount the token of its service account/,
  );
  await using without = await start(["--disable-builtin-k8s-secret-store"], cluster.podEnv);
  await using outside = await start([], {});
  expect(without.logs() + outside.logs()).not.toContain("secretstores.kubernetes");
});
