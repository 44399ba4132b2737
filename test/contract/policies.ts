/** Policies from the text of a Resiliency spec, as a sidecar makes them, for blocks under test. */
import { systemClock } from "../../mesh/index.ts";
import { parseResources } from "../../src/config/parse-resources.ts";
import type { ResiliencyResource } from "../../src/config/resources.ts";
import { PolicyCompiler } from "../../src/resiliency/compile.ts";
import type { Policies } from "../../src/resiliency/policies.ts";
import { noMetrics } from "../../src/telemetry/metrics.ts";
import { silentLog } from "./silent-log.ts";

/** `spec` is YAML, indented by two. Waits are real: keep them at a millisecond. */
export function policiesOf(spec: string): Policies {
  const text = `apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n${spec}`;
  const { resources } = parseResources(text, "r.yaml");
  const init = { clock: systemClock, random: () => 0.5, log: silentLog, metrics: noMetrics };
  const compiled = new PolicyCompiler(init).compile(resources as ResiliencyResource[]);
  return { ...compiled, component: (...of) => ({ policy: compiled.component(...of) }) };
}
