/** Every secret store component under the contract suite. */
import { writeFile } from "node:fs/promises";
import * as vault from "../../src/components/secrets/hashicorp-vault.ts";
import * as kubernetes from "../../src/components/secrets/kubernetes.ts";
import * as localEnv from "../../src/components/secrets/local-env.ts";
import * as localFile from "../../src/components/secrets/local-file.ts";
import { tempDir } from "../kit/index.ts";
import { startKubernetes } from "../kit/servers/kubernetes.ts";
import { rootToken, startVault } from "../kit/servers/vault.ts";
import { secretContext } from "./secret-context.ts";
import { secretStoreContract, type Secrets } from "./secretstore.ts";

for (const multiValued of [false, true]) {
  const name = `secretstores.local.file${multiValued ? " with several values" : ""}`;
  secretStoreContract(name, { multiValued, missing: /^secret .* not found$/ }, async (secrets) => {
    const folder = tempDir("secrets");
    const secretsFile = folder.join("secrets.json");
    await writeFile(secretsFile, JSON.stringify(shortened(secrets)));
    const properties = { secretsFile, multiValued: String(multiValued) };
    const store = await localFile.open(secretContext(localFile.metadataSchema, properties));
    return {
      store,
      async close() {
        await store.close();
        await folder[Symbol.asyncDispose]();
      },
    };
  });
}

secretStoreContract("secretstores.local.env", { multiValued: false, missing: "empty" }, async (secrets) => {
  const env = Object.fromEntries(Object.entries(secrets).map(([name, secret]) => [name, secret[name] ?? ""]));
  const store = await localEnv.open(secretContext(localEnv.metadataSchema, {}, env));
  return { store, close: () => store.close() };
});

secretStoreContract(
  "secretstores.hashicorp.vault",
  { multiValued: true, missing: /^getSecret .* failed secret key or version not exist$/ },
  async (secrets) => {
    const server = await startVault();
    for (const [name, secret] of Object.entries(secrets)) await server.write(`dapr/${name}`, secret);
    const properties = { vaultAddr: server.url, vaultToken: rootToken };
    const store = await vault.open(secretContext(vault.metadataSchema, properties));
    return {
      store,
      async close() {
        await store.close();
        await server[Symbol.asyncDispose]();
      },
    };
  },
);

secretStoreContract(
  "secretstores.kubernetes",
  {
    multiValued: true,
    silent: true,
    missing: /^secrets ".*" not found$/,
    nameOf: (name) => name.toLowerCase().replaceAll("_", "-"),
  },
  async (secrets) => {
    const server = await startKubernetes();
    for (const [name, secret] of Object.entries(secrets)) await server.create("shop", name, secret);
    const env = { ...server.podEnv, NAMESPACE: "shop" };
    const context = secretContext(kubernetes.metadataSchema, {}, env);
    const store = await kubernetes.open(context, server.serviceAccountFolder);
    return {
      store,
      async close() {
        await store.close();
        await server[Symbol.asyncDispose]();
      },
    };
  },
);

/** As a user writes the file: a secret of one value is a text. */
function shortened(secrets: Secrets): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(secrets).map(([name, secret]) => [name, name in secret ? secret[name] : secret]),
  );
}
