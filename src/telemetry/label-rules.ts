/** `spec.metrics.rules`: label values of a family rewritten by regular expressions before they are counted. */
import type { MetricRule } from "../config/kinds/configuration.ts";

/** Rewrites the value of one label. */
export type Rewrite = (value: string) => string;

/** By family name without `dapr_`, then by label name. */
export type LabelRules = ReadonlyMap<string, ReadonlyMap<string, Rewrite>>;

/** The rules in the order of the Configuration: what one has rewritten, the next one sees. */
export function readLabelRules(rules: readonly MetricRule[]): LabelRules {
  const families = new Map<string, Map<string, Rewrite>>();
  for (const { name, labels } of rules) {
    const family = name.replace(/^dapr_/, "");
    const known = families.get(family) ?? new Map<string, Rewrite>();
    families.set(family, known);
    for (const { name: label, regex } of labels) {
      for (const { replacement, pattern } of regex) {
        const expression = new RegExp(pattern, "g");
        const before = known.get(label);
        known.set(label, (value) => (before?.(value) ?? value).replace(expression, replacement));
      }
    }
  }
  return families;
}
