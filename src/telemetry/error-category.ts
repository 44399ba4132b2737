/** Which part of the API an error code belongs to, as the label `category` of `error_code_total`. */

const categories: readonly (readonly [RegExp, string])[] = [
  [/^ERR_DIRECT_INVOKE/, "service-invocation"],
  [/ACTOR/, "actor"],
  [/WORKFLOW/, "workflow"],
  [/PUBSUB|TOPIC|PUBLISH/, "pubsub"],
  [/SECRET/, "secret"],
  [/CONFIGURATION/, "configuration"],
  [/CRYPTO/, "crypto"],
  [/CONVERSATION/, "conversation"],
  [/BINDING/, "binding"],
  [/LOCK/, "lock"],
  [/STATE/, "state"],
  [/HEALTH/, "health"],
  [/JOB|SCHEDULER/, "job"],
  [/PLUGGABLE/, "pluggable-component"],
];

/** `common` for what belongs to none. */
export function errorCategory(code: string): string {
  return categories.find(([form]) => form.test(code))?.[1] ?? "common";
}
