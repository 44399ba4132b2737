/** Component texts for the tests of bindings. */

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
