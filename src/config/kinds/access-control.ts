/** `spec.accessControl` of a Configuration: which callers may reach which operations of this sidecar's app. */
import { goQuote } from "../../lib/go-quote.ts";
import type { Section } from "../section.ts";

/** Actions are as written: `allow` in any case allows, all others deny. */
export interface AccessControlSettings {
  /** For callers without a policy of their own. */
  readonly defaultAction: string;
  readonly policies: readonly AccessPolicy[];
}

/** What one app of one namespace may call. */
export interface AccessPolicy {
  readonly appId: string;
  readonly namespace: string;
  readonly trustDomain: string;
  /** For operations that are not listed; empty for the global one. */
  readonly defaultAction: string;
  readonly operations: readonly AccessOperation[];
}

export interface AccessOperation {
  /** Path with `*` and `**`, its leading slash optional. */
  readonly name: string;
  /** As written; `*` for all. */
  readonly verbs: readonly string[];
  readonly action: string;
}

/** Undefined when the section is not there. Errors are noted in it. */
export function readAccessControl(section: Section | undefined): AccessControlSettings | undefined {
  if (section === undefined) return undefined;
  section.warnUnknown(["defaultAction", "trustDomain", "policies"]);
  const policies = section.sections("policies").map(readPolicy);
  const given = readAction(section, "defaultAction");
  // Who writes down an empty action beside policies gets the safe reading; one that is left out allows.
  const defaultAction = given === "" && policies.length > 0 ? "deny" : given || "allow";
  return { defaultAction, policies };
}

function readPolicy(policy: Section): AccessPolicy {
  policy.warnUnknown(["appId", "defaultAction", "trustDomain", "namespace", "operations"]);
  warnDoubles(policy);
  return {
    appId: policy.requiredText("appId", "orders"),
    namespace: policy.requiredText("namespace", "default"),
    trustDomain: policy.requiredText("trustDomain", "public"),
    defaultAction: readAction(policy, "defaultAction") ?? "",
    operations: policy.sections("operations").map(readOperation),
  };
}

/** Of two operations with one name the first counts, whatever the verbs of the other. */
function warnDoubles(policy: Section): void {
  const names = new Set<string>();
  for (const operation of policy.sections("operations")) {
    const name = (operation.text("name") ?? "").replace(/^\//, "").toLowerCase();
    if (names.has(name)) {
      const text = `${operation.nameOf("name")}: ${goQuote(name)} is declared above already and has no effect here`;
      operation.problems.warn(
        operation.positionOf("name"),
        `${text}; write one operation with all its verbs`,
      );
    }
    names.add(name);
  }
}

function readOperation(operation: Section): AccessOperation {
  operation.warnUnknown(["name", "httpVerb", "action"]);
  return {
    name: operation.text("name") ?? "",
    verbs: operation.texts("httpVerb") ?? [],
    action: readAction(operation, "action") ?? "",
  };
}

function readAction(section: Section, key: string): string | undefined {
  const action = section.text(key);
  if (action !== undefined && !["", "allow", "deny"].includes(action.toLowerCase())) {
    const text = `${section.nameOf(key)}: ${goQuote(action)} is neither allow nor deny and denies`;
    section.problems.warn(section.positionOf(key), text);
  }
  return action;
}
