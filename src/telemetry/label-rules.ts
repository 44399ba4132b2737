/** `spec.metrics.rules`: label values of a family rewritten by regular expressions before they are counted. */

/** Rewrites the value of one label. */
export type Rewrite = (value: string) => string;

/** By family name without `dapr_`, then by label name. */
export type LabelRules = ReadonlyMap<string, ReadonlyMap<string, Rewrite>>;

/** Reads the JSON data of the rules; what cannot be used is told to `problem` and left out. */
export function readLabelRules(rules: readonly unknown[], problem: (text: string) => void): LabelRules {
  const families = new Map<string, Map<string, Rewrite>>();
  for (const rule of rules) {
    const { name, labels } = fieldsOf(rule);
    if (typeof name !== "string" || !Array.isArray(labels)) {
      problem("a rule needs a name and a list of labels, as in {name: http_server_latency, labels: [...]}");
      continue;
    }
    const family = name.replace(/^dapr_/, "");
    const known = families.get(family) ?? new Map<string, Rewrite>();
    families.set(family, known);
    for (const label of labels as unknown[]) addLabel(known, family, label, problem);
  }
  return families;
}

function addLabel(
  known: Map<string, Rewrite>,
  family: string,
  label: unknown,
  problem: (text: string) => void,
): void {
  const { name, regex } = fieldsOf(label);
  if (typeof name !== "string" || typeof regex !== "object" || regex === null) {
    return problem(`${family}: a label needs a name and regex, a mapping of replacement to pattern`);
  }
  for (const [replacement, pattern] of Object.entries(regex)) {
    try {
      const expression = new RegExp(String(pattern), "g");
      const before = known.get(name);
      const rewrite: Rewrite = (value) => value.replace(expression, replacement);
      known.set(name, before === undefined ? rewrite : (value) => rewrite(before(value)));
    } catch (error) {
      problem(`${family}: label ${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
