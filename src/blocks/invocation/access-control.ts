/**
 * Which callers may reach which operations of the own app (`spec.accessControl`), compiled when it is set. The identity
 * of a caller is what the NATS subject says (docs/decisions/0020), so there always is one.
 */
import { MeshError, type Caller } from "../../../mesh/index.ts";
import type { AccessControlSettings, AccessPolicy } from "../../config/kinds/access-control.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { OperationTree } from "./operation-tree.ts";

/** Of all identities in the mesh; policies for another one match nobody. */
const trustDomain = "public";

type Policy = {
  /** Action of what no operation decides; undefined for the global one. */
  readonly allowed: boolean | undefined;
  /** By lower-case path; true or false by verb. */
  readonly http: OperationTree<ReadonlyMap<string, boolean>>;
  readonly grpc: OperationTree<boolean>;
};

type Outcome = { readonly allowed: boolean; readonly by: "app" | "global" };

const openToAll: Outcome = Object.freeze({ allowed: true, by: "global" });

/** One per sidecar. Until settings are given everybody may do everything. */
export class AccessControl {
  #policies: ReadonlyMap<string, Policy> | undefined;
  #allowed = true;
  readonly #global: { readonly allowed: Count; readonly blocked: Count };
  readonly #app: { readonly allowed: Count; readonly blocked: Count };

  constructor(metrics: Metrics) {
    const counts = (level: string) => ({
      allowed: callsCount(metrics, level, "allowed"),
      blocked: callsCount(metrics, level, "blocked"),
    });
    this.#global = counts("global");
    this.#app = counts("app");
  }

  /** For operations from here on. Undefined: everybody may do everything. */
  set(settings: AccessControlSettings | undefined): void {
    this.#allowed = settings === undefined || allows(settings.defaultAction);
    this.#policies = settings && compile(settings.policies);
  }

  /**
   * Throws MeshError `denied` with the text for the caller when this operation is not for it. `operation` is the path
   * of a request, or the method of a gRPC call, and told as it is written; `verb` is undefined for gRPC, where letter
   * case counts and verbs do not.
   */
  check(caller: Caller, operation: string, verb: string | undefined): void {
    const { allowed, by } = this.#decide(caller, operation, verb);
    const counts = by === "app" ? this.#app : this.#global;
    (allowed ? counts.allowed : counts.blocked)(caller.app, caller.namespace, trustDomain);
    if (allowed) return;
    const id = `spiffe://${trustDomain}/ns/${caller.namespace}/${caller.app}`;
    throw new MeshError(
      "denied",
      `access control policy has denied access to id: ${id} operation: ${operation} verb: ${verb ?? "NONE"}`,
    );
  }

  #decide({ app, namespace }: Caller, operation: string, verb: string | undefined): Outcome {
    if (this.#policies === undefined) return openToAll;
    const policy = this.#policies.get(keyOf(app, namespace));
    if (policy === undefined) return { allowed: this.#allowed, by: "global" };
    const found =
      verb === undefined
        ? policy.grpc.find(operation)
        : forVerb(policy.http.find(operation.toLowerCase()), verb);
    const by = policy.allowed === undefined ? "global" : "app";
    return { allowed: found ?? policy.allowed ?? this.#allowed, by };
  }
}

type Count = ReturnType<Metrics["count"]>;

function callsCount(metrics: Metrics, level: string, outcome: string): Count {
  const name = `runtime_acl_${level}_policy_action_${outcome}_total`;
  const help = `Calls ${outcome} by the ${level} access policy.`;
  return metrics.count(name, help, ["app_id", "namespace", "trustDomain"]);
}

/** Policies of another trust domain are for nobody here. Of two for one caller the later one counts. */
function compile(policies: readonly AccessPolicy[]): ReadonlyMap<string, Policy> {
  const compiled = new Map<string, Policy>();
  for (const { appId, namespace, defaultAction, operations, ...policy } of policies) {
    const http = new OperationTree<ReadonlyMap<string, boolean>>();
    const grpc = new OperationTree<boolean>();
    for (const { name, verbs, action } of operations) {
      const allowed = allows(action);
      http.add(name.toLowerCase(), new Map(verbs.map((verb) => [verb, allowed])));
      grpc.add(name, allowed);
    }
    const key = keyOf(appId, namespace);
    compiled.delete(key);
    if (policy.trustDomain !== trustDomain) continue;
    compiled.set(key, { allowed: defaultAction === "" ? undefined : allows(defaultAction), http, grpc });
  }
  return compiled;
}

function forVerb(verbs: ReadonlyMap<string, boolean> | undefined, verb: string): boolean | undefined {
  return verbs?.get(verb.toUpperCase()) ?? verbs?.get("*");
}

function allows(action: string): boolean {
  return action.toLowerCase() === "allow";
}

function keyOf(app: string, namespace: string): string {
  return `${namespace}\u0000${app}`;
}
