/** Changing the resource files of a running sidecar, and waiting until it has followed. */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { eventually, type Sidecar } from "../../kit/index.ts";

/** One component as YAML; values are quoted. */
export function component(
  name: string,
  type: string,
  metadata: Readonly<Record<string, string>> = {},
  rest = "",
): string {
  const items = Object.entries(metadata).map(
    ([field, value]) => `  - name: ${field}\n    value: ${JSON.stringify(value)}\n`,
  );
  return [
    `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: ${name}\n`,
    `spec:\n  type: ${type}\n  version: v1\n`,
    items.length === 0 ? "" : `  metadata:\n${items.join("")}`,
    rest,
  ].join("");
}

/** A declarative subscription to a topic of `pubsub`. */
export function subscription(topic: string, route: string, name = "sub"): string {
  return [
    `apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: ${name}\n`,
    `spec:\n  pubsubname: pubsub\n  topic: ${topic}\n  routes:\n    default: ${route}\n`,
  ].join("");
}

/** Writes in place, as an editor does that does not rename. */
export function put(sidecar: Sidecar, file: string, text: string): void {
  writeFileSync(join(sidecar.resourcesPath, file), text);
}

/** Exchanges a file, so that it is never seen empty: for tests that count what is said about it. */
export function exchange(sidecar: Sidecar, file: string, text: string): void {
  const draft = join(dirname(sidecar.resourcesPath), "draft");
  writeFileSync(draft, text);
  renameSync(draft, join(sidecar.resourcesPath, file));
}

export function remove(sidecar: Sidecar, file: string): void {
  rmSync(join(sidecar.resourcesPath, file));
}

/** Names of the components that the metadata API lists. */
export async function componentsOf(sidecar: Sidecar): Promise<string[]> {
  const reply = await sidecar.get("/v1.0/metadata");
  return (reply.json<{ components?: { name: string }[] }>().components ?? []).map(({ name }) => name);
}

/** Waits until the sidecar lists these components, in any order. */
export async function hasComponents(sidecar: Sidecar, names: readonly string[]): Promise<void> {
  await eventually(
    async () => expect((await componentsOf(sidecar)).toSorted()).toEqual([...names].toSorted()),
    { timeoutMs: 30_000 },
  );
}

/** Waits for a line of the log that comes after `from`, a length of it. */
export async function loggedSince(sidecar: Sidecar, from: number, pattern: RegExp): Promise<void> {
  await eventually(() => expect(sidecar.logs().slice(from)).toMatch(pattern), { timeoutMs: 30_000 });
}
