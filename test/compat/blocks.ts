/** What the SDK callers find beside state and events: locks, keys, and settings of which one changes all the time. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { joinMesh } from "../../mesh/index.ts";
import { type Nats, tempDir } from "../kit/index.ts";
import { resources } from "./resources.ts";

export type Blocks = AsyncDisposable & { readonly resources: Readonly<Record<string, string>> };

/** How often `changing` gets another value, ms. */
const changeMs = 150;

const component = (name: string, type: string, metadata = ""): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: ${name} }\n` +
  `spec: { type: ${type}, version: v1, metadata: [${metadata}] }\n`;

/** Settings `fixed` and `changing`, a key `key`. */
export async function startBlocks(nats: Nats): Promise<Blocks> {
  const keys = tempDir("keys");
  writeFileSync(keys.join("key"), randomBytes(32).toString("base64"));
  const mesh = joinMesh({ namespace: "default", app: "settings-writer", natsUrls: [nats.url] });
  const settings = await mesh.table({ kind: "configuration", name: ["default", "settings"] });
  await settings.put(["fixed"], Buffer.from("blue"));
  let value = 0;
  const change = setInterval(() => {
    settings.put(["changing"], Buffer.from(String(value++))).catch(() => {});
  }, changeMs);
  return {
    resources: {
      ...resources,
      "locks.yaml": component("locks", "lock.nats"),
      "settings.yaml": component("settings", "configuration.nats", "{ name: pollInterval, value: 100ms }"),
      "vault.yaml": component("vault", "crypto.dapr.localstorage", `{ name: path, value: ${keys.path} }`),
    },
    async [Symbol.asyncDispose]() {
      clearInterval(change);
      await mesh.close();
      await keys[Symbol.asyncDispose]();
    },
  };
}
