/** Component files for the state tests. */

/** One state component as YAML. */
export function stateComponent(
  name: string,
  type: string,
  metadata: Readonly<Record<string, string>> = {},
): string {
  const fields = Object.entries(metadata).map(
    ([field, value]) => `  - name: ${field}\n    value: ${JSON.stringify(value)}\n`,
  );
  return [
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n",
    `  name: ${name}\nspec:\n  type: ${type}\n  version: v1\n`,
    fields.length === 0 ? "" : `  metadata:\n${fields.join("")}`,
  ].join("");
}
