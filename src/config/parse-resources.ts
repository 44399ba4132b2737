/**
 * Turns the text of one resource file into typed resources and problems. Pure; nothing is filtered by app here.
 */
import { didYouMean } from "../lib/nearest.ts";
import { deepFreeze } from "../lib/freeze.ts";
import { parseYaml, type YamlDocument } from "../lib/yaml.ts";
import type { ComponentResource } from "./kinds/component.ts";
import type { GenericResource } from "./kinds/generic.ts";
import { parseHeader } from "./kinds/header.ts";
import type { HttpEndpointResource } from "./kinds/http-endpoint.ts";
import { parseComponent } from "./kinds/parse-component.ts";
import { parseHttpEndpoint } from "./kinds/parse-http-endpoint.ts";
import { parseResiliency } from "./kinds/parse-resiliency.ts";
import { parseSubscription } from "./kinds/parse-subscription.ts";
import type { ResiliencyResource } from "./kinds/resiliency.ts";
import type { SubscriptionResource } from "./kinds/subscription.ts";
import type { Problem } from "./problem.ts";
import { describe, ProblemList, Section } from "./section.ts";

export type Resource =
  | ComponentResource
  | SubscriptionResource
  | HttpEndpointResource
  | ResiliencyResource
  | GenericResource;

/** What one file holds, in document order. */
export interface ParsedResources {
  readonly resources: readonly Resource[];
  readonly problems: readonly Problem[];
  /** A document is neither a resource of ours nor whole one of others: the file may be half written. */
  readonly broken: boolean;
}

/** API versions by kind. Configurations are read from `--config` and only recognised here. */
const KINDS: ReadonlyMap<string, readonly string[]> = new Map([
  ["Component", ["dapr.io/v1alpha1"]],
  ["Subscription", ["dapr.io/v1alpha1", "dapr.io/v2alpha1"]],
  ["Configuration", ["dapr.io/v1alpha1"]],
  ["Resiliency", ["dapr.io/v1alpha1"]],
  ["HTTPEndpoint", ["dapr.io/v1alpha1"]],
  ["MCPServer", ["dapr.io/v1alpha1"]],
  ["WorkflowAccessPolicy", ["dapr.io/v1alpha1"]],
]);

/** Reads every document of a file. A document that cannot be used becomes a problem and never stops the others. */
export function parseResources(text: string, file: string): ParsedResources {
  const resources: Resource[] = [];
  const problems: Problem[] = [];
  const control = CONTROL.exec(text);
  if (control !== null)
    return { resources, problems: [controlProblem(text, control.index, file)], broken: true };
  let broken = false;
  let first = true;
  for (const document of parseYaml(text)) {
    const list = new ProblemList(file);
    const resource = parseDocument(document, list, first);
    if (document.root !== undefined || document.error !== undefined) first = false;
    if (resource !== undefined) resources.push(resource);
    else broken ||= document.error !== undefined || !isForeign(document.root);
    problems.push(...list.all);
  }
  return deepFreeze({ resources, problems, broken });
}

/** YAML allows none of them, and a file that holds one is usually no text at all. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/;

function controlProblem(text: string, index: number, file: string): Problem {
  const before = text.slice(0, index).split("\n");
  const code = text.charCodeAt(index).toString(16).padStart(4, "0").toUpperCase();
  const message = `the control character U+${code} is not allowed in YAML, save the file as plain text`;
  return { severity: "error", file, line: before.length, column: before.at(-1)!.length + 1, message };
}

/** `first`: no document with content stands before it in its file. */
function parseDocument(
  { root, error, warnings }: YamlDocument,
  problems: ProblemList,
  first: boolean,
): Resource | undefined {
  if (error !== undefined) {
    problems.error(error, error.message);
    return undefined;
  }
  if (root === undefined) return undefined;
  if (root.kind !== "map") {
    const fix = 'write apiVersion:, kind:, metadata: and spec: with a blank after each ":"';
    problems.error(root, `a resource must be a mapping, not ${describe(root)}; ${fix}`);
    return undefined;
  }
  const section = new Section(problems, "", root);
  const kind = section.text("kind") ?? "";
  const apiVersion = section.text("apiVersion") ?? "";
  if (problems.failed || !isOurs(section, kind, apiVersion)) return undefined;
  for (const warning of warnings) problems.warn(warning, warning.message);
  const header = parseHeader(section, kind);
  if (header === undefined) return undefined;
  if (kind === "Component") return parseComponent(section, header);
  if (kind === "Subscription") {
    return parseSubscription(section, header, apiVersion === "dapr.io/v1alpha1" ? "v1alpha1" : "v2alpha1");
  }
  if (kind === "HTTPEndpoint") return parseHttpEndpoint(section, header);
  if (kind === "Resiliency") {
    if (first) return parseResiliency(root, header, problems);
    const fix = "only the first document of a file is read as one; move it to a file of its own";
    problems.error(root, `Resiliency ${header.name} is ignored: ${fix}`);
    return undefined;
  }
  return { kind, apiVersion, ...header, spec: section.json("spec") };
}

/** Nothing at all, or a whole manifest of another program. */
function isForeign(root: YamlDocument["root"]): boolean {
  if (root === undefined) return true;
  if (root.kind !== "map") return false;
  const section = new Section(new ProblemList(""), "", root);
  const [kind, apiVersion] = [section.text("kind") ?? "", section.text("apiVersion") ?? ""];
  return kind !== "" && apiVersion !== "" && !KINDS.has(kind) && !apiVersion.startsWith("dapr.io/");
}

/** Other programs' manifests are passed over silently; what only looks wrong is named. */
function isOurs(section: Section, kind: string, apiVersion: string): boolean {
  const versions = KINDS.get(kind);
  if (versions?.includes(apiVersion)) return true;
  if (versions === undefined) {
    if (!apiVersion.startsWith("dapr.io/")) return false;
    const hint = didYouMean(kind, KINDS.keys());
    const known = [...KINDS.keys()].join(", ");
    const fault =
      kind === "" ? "is missing, write kind: Component" : `${JSON.stringify(kind)} is not known${hint}`;
    section.problems.warn(section.positionOf("kind"), `kind ${fault} (known: ${known})`);
    return false;
  }
  // Other systems have kinds of these names too, so only a near miss of ours is worth a line.
  if (apiVersion === "" || /dapr/i.test(apiVersion)) {
    const state =
      apiVersion === "" ? "is missing" : `${JSON.stringify(apiVersion)} is not known for kind ${kind}`;
    const fix = `write apiVersion: ${versions.join(" or ")}`;
    section.problems.warn(section.positionOf("apiVersion"), `apiVersion ${state}, ${fix}`);
  }
  return false;
}
