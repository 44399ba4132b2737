/** Component texts and calls for the tests of bindings. */
import type { Sidecar } from "../../kit/index.ts";

export function binding(name: string, type: string, metadata: Readonly<Record<string, string>> = {}): string {
  const items = Object.entries(metadata).map(
    ([key, value]) => `    - name: ${key}\n      value: ${JSON.stringify(value)}\n`,
  );
  return [
    "apiVersion: dapr.io/v1alpha1",
    "kind: Component",
    `metadata: { name: ${name} }`,
    "spec:",
    `  type: ${type}`,
    "  version: v1",
    `  metadata:${items.length === 0 ? " []" : `\n${items.join("")}`}`,
    "",
  ].join("\n");
}

/** What the app asks of an output binding, over HTTP. */
export function invoke(
  sidecar: Sidecar,
  name: string,
  operation: string,
  data: unknown,
  metadata: Readonly<Record<string, string>> = {},
): ReturnType<Sidecar["http"]> {
  const body = JSON.stringify({ operation, data, metadata });
  return sidecar.http(`/v1.0/bindings/${name}`, { method: "POST", body });
}
