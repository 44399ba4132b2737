/** Every crypto provider component under the contract suite. */
import { writeFile } from "node:fs/promises";
import { type Mesh, systemClock } from "../../mesh/index.ts";
import type { ComponentContext, MetadataSchema } from "../../src/components/component.ts";
import * as jwks from "../../src/components/crypto/jwks.ts";
import * as localStorage from "../../src/components/crypto/local-storage.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import { tempDir } from "../kit/index.ts";
import { cryptoContract, type Keys } from "./crypto.ts";
import { silentLog } from "./silent-log.ts";

function context<S extends MetadataSchema>(
  schema: S,
  properties: Readonly<Record<string, string>>,
): ComponentContext<S> {
  return {
    name: "crypto",
    type: "crypto.tested",
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(schema, "crypto", properties).values,
    properties,
    env: {},
    mesh: undefined as unknown as Mesh,
    clock: systemClock,
    log: silentLog,
    signal: new AbortController().signal,
  };
}

cryptoContract("crypto.dapr.localstorage", async (keys) => {
  const folder = tempDir("keys");
  for (const [name, key] of Object.entries(keys)) await writeFile(folder.join(name), JSON.stringify(key));
  const provider = await localStorage.open(context(localStorage.metadataSchema, { path: folder.path }));
  return {
    provider,
    async close() {
      await provider.close();
      await folder[Symbol.asyncDispose]();
    },
  };
});

const setOf = (keys: Keys): string =>
  JSON.stringify({ keys: Object.entries(keys).map(([kid, key]) => Object.assign({ kid }, key)) });

for (const form of ["JSON", "base64"]) {
  cryptoContract(`crypto.dapr.jwks in ${form}`, async (keys) => {
    const text = form === "JSON" ? setOf(keys) : Buffer.from(setOf(keys)).toString("base64");
    const provider = await jwks.open(context(jwks.metadataSchema, { jwks: text }));
    return { provider, close: () => provider.close() };
  });
}
