/**
 * What every resource starts with: its name, namespace and scopes.
 */
import type { Origin } from "../problem.ts";
import type { Section } from "../section.ts";

export interface ResourceHeader {
  readonly name: string;
  readonly namespace: string | undefined;
  /** Empty for every app. */
  readonly scopes: readonly string[];
  /** Where the document starts. */
  readonly origin: Origin;
}

const METADATA_KEYS = [
  "name",
  "namespace",
  "labels",
  "annotations",
  "generateName",
  "uid",
  "resourceVersion",
  "generation",
  "creationTimestamp",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "finalizers",
  "managedFields",
  "ownerReferences",
  "selfLink",
];

/** The header, or undefined after noting an error. */
export function parseHeader(root: Section, kind: string): ResourceHeader | undefined {
  const metadata = root.section("metadata");
  metadata?.warnUnknown(METADATA_KEYS);
  const name = metadata?.text("name") ?? "";
  const fault = nameFault(name);
  if (fault !== undefined && !root.problems.failed) {
    const at = metadata?.positionOf("name") ?? root.positionOf("metadata");
    root.problems.error(at, `metadata.name ${fault}`);
  }
  const header: ResourceHeader = {
    name,
    namespace: metadata?.text("namespace") || undefined,
    scopes: root.texts("scopes") ?? [],
    origin: root.problems.origin(root.positionOf("apiVersion")),
  };
  if (header.scopes.some((appId) => appId.trim() !== appId || appId === "")) {
    root.problems.warn(
      root.positionOf("scopes"),
      `scopes of this ${kind} name an app with blanks around it, or none`,
    );
  }
  return root.problems.failed ? undefined : header;
}

function nameFault(name: string): string | undefined {
  if (name === "") return "is missing, every resource needs one";
  const bad = name === "." || name === ".." ? name : /[/%]/.exec(name)?.[0];
  return bad === undefined
    ? undefined
    : `${JSON.stringify(name)} may not be or contain "${bad}", choose another name`;
}
