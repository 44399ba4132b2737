/** Component files for the tests of secrets and of references to them. */

/** A `secretstores.local.file` component as YAML. */
export function fileStore(
  name: string,
  path: string,
  metadata: Readonly<Record<string, string>> = {},
): string {
  return component(name, "secretstores.local.file", { secretsFile: path, ...metadata });
}

/** One component as YAML; `rest` follows at the top level. */
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
