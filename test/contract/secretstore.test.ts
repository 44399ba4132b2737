/** Every secret store component under the contract suite. */
import { writeFile } from "node:fs/promises";
import type { Clock, Mesh } from "../../mesh/index.ts";
import type { ComponentContext, MetadataSchema } from "../../src/components/component.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import * as localEnv from "../../src/components/secrets/local-env.ts";
import * as localFile from "../../src/components/secrets/local-file.ts";
import { tempDir } from "../kit/index.ts";
import { secretStoreContract, type Secrets } from "./secretstore.ts";
import { silentLog } from "./silent-log.ts";

function context<S extends MetadataSchema>(
  schema: S,
  properties: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>> = {},
): ComponentContext<S> {
  return {
    name: "secrets",
    type: "secretstores.tested",
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(schema, "secretstores", properties).values,
    properties,
    env,
    mesh: undefined as unknown as Mesh,
    clock: undefined as unknown as Clock,
    log: silentLog,
    signal: new AbortController().signal,
  };
}

for (const multiValued of [false, true]) {
  const name = `secretstores.local.file${multiValued ? " with several values" : ""}`;
  secretStoreContract(name, { multiValued, missing: /^secret .* not found$/ }, async (secrets) => {
    const folder = tempDir("secrets");
    const secretsFile = folder.join("secrets.json");
    await writeFile(secretsFile, JSON.stringify(shortened(secrets)));
    const properties = { secretsFile, multiValued: String(multiValued) };
    const store = await localFile.open(context(localFile.metadataSchema, properties));
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
  const store = await localEnv.open(context(localEnv.metadataSchema, {}, env));
  return { store, close: () => store.close() };
});

/** As a user writes the file: a secret of one value is a text. */
function shortened(secrets: Secrets): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(secrets).map(([name, secret]) => [name, name in secret ? secret[name] : secret]),
  );
}
