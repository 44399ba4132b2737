/**
 * Reads Configuration documents and merges them: mappings field by field, lists and scalars as a whole.
 */
import { deepFreeze } from "../../lib/freeze.ts";
import { goQuote } from "../../lib/go-quote.ts";
import { parseYaml, type YamlDocument, type YamlEntry, type YamlMap } from "../../lib/yaml.ts";
import { formatProblem, type Problem } from "../problem.ts";
import { describe, ProblemList, Section } from "../section.ts";
import { SettingError } from "../setting-error.ts";
import { readAccessControl } from "./access-control.ts";
import {
  type ApiRule,
  type ConfigurationResource,
  DEFAULT_CONFIGURATION,
  type PipelineHandler,
  type SecretScope,
} from "./configuration.ts";
import { readMetrics, readTracing } from "./parse-telemetry.ts";

/** A file's text after variables were replaced. */
export interface ConfigurationSource {
  readonly text: string;
  readonly file: string;
}

const SPEC_KEYS = [
  "tracing",
  "metric",
  "metrics",
  "httpPipeline",
  "appHttpPipeline",
  "api",
  "accessControl",
  "secrets",
  "components",
  "features",
  "logging",
  "mtls",
  "nameResolution",
  "workflow",
  "wasm",
];

/**
 * Merges the files in their order over the defaults. `withSpec`: each must have one.
 * @throws {SettingError} naming file and line for the first value that cannot be used.
 */
export function parseConfiguration(
  sources: readonly ConfigurationSource[],
  withSpec = false,
): ConfigurationResource {
  const problems: Problem[] = [];
  let merged: YamlMap | undefined;
  for (const { text, file } of sources) {
    const list = new ProblemList(file);
    const root = readRoot(parseYaml(text), list);
    // Each file is also read alone, so that a fault is reported in its own file.
    const section = root && new Section(list, "", root);
    if (section !== undefined) readConfiguration(section);
    if (withSpec && section?.node("spec") === undefined)
      list.error(section?.at ?? { line: 1, column: 1 }, "spec is missing; for all defaults write spec: {}");
    const fault = list.all.find((problem) => problem.severity === "error");
    if (fault !== undefined) throw new SettingError(`error loading configuration: ${formatProblem(fault)}`);
    problems.push(...list.all);
    if (root !== undefined) merged = merged === undefined ? root : merge(merged, root);
  }
  if (merged === undefined) return deepFreeze({ ...DEFAULT_CONFIGURATION, problems });
  const whole = new ProblemList("");
  const configuration = readConfiguration(new Section(whole, "", merged));
  return deepFreeze({ ...configuration, problems });
}

/** The first document that holds anything; the others are not read. */
function readRoot(documents: readonly YamlDocument[], problems: ProblemList): YamlMap | undefined {
  const [first, second] = documents.filter(({ root, error }) => root !== undefined || error !== undefined);
  if (first?.error !== undefined) problems.error(first.error, first.error.message);
  const root = first?.root;
  if (first === undefined || root === undefined) return undefined;
  for (const warning of first.warnings) problems.warn(warning, warning.message);
  if (second?.root !== undefined) {
    problems.warn(
      second.root,
      "only the first document of a configuration file is read, use a file for each",
    );
  }
  if (root.kind === "map") return root;
  problems.error(root, `a Configuration must be a mapping, not ${describe(root)}`);
  return undefined;
}

function merge(under: YamlMap, over: YamlMap): YamlMap {
  const entries = new Map<string, YamlEntry>(under.entries);
  for (const [key, entry] of over.entries) {
    const below = entries.get(key)?.value;
    const { value } = entry;
    if (below !== undefined && value.kind === "scalar" && value.value === null) continue;
    const both = below?.kind === "map" && value.kind === "map";
    entries.set(key, both ? { ...entry, value: merge(below, value) } : entry);
  }
  return { ...over, entries };
}

function readConfiguration(root: Section): ConfigurationResource {
  root.warnUnknown(["apiVersion", "kind", "metadata", "spec"]);
  const kind = root.text("kind");
  if (kind !== undefined && kind !== "Configuration") {
    root.problems.warn(
      root.positionOf("kind"),
      `kind is ${JSON.stringify(kind)}, a --config file holds a Configuration`,
    );
  }
  const name = root.section("metadata")?.text("name") ?? "";
  const spec = root.section("spec");
  if (spec === undefined) return { ...DEFAULT_CONFIGURATION, name };
  spec.warnUnknown(SPEC_KEYS);
  const api = spec.section("api");
  api?.warnUnknown(["allowed", "denied"]);
  return {
    name,
    tracing: readTracing(spec.section("tracing")),
    metrics: readMetrics([spec.section("metric"), spec.section("metrics")]),
    api: { allowed: readApiRules(api, "allowed"), denied: readApiRules(api, "denied") },
    apiLogging: readApiLogging(spec.section("logging")),
    features: spec.sections("features").map((feature) => ({
      name: feature.requiredText("name", "HotReload"),
      enabled: feature.boolean("enabled") ?? false,
    })),
    httpPipeline: readPipeline(spec.section("httpPipeline")),
    appHttpPipeline: readPipeline(spec.section("appHttpPipeline")),
    deniedComponents: spec.section("components")?.texts("deny") ?? [],
    secretScopes: readSecretScopes(spec.section("secrets")),
    wasmStrictSandbox: spec.section("wasm")?.boolean("strictSandbox") ?? false,
    accessControl: readAccessControl(spec.section("accessControl")),
    nameResolution: spec.json("nameResolution"),
    workflow: spec.json("workflow"),
    mtls: spec.json("mtls"),
    problems: [],
  };
}

function readApiRules(api: Section | undefined, key: "allowed" | "denied"): readonly ApiRule[] {
  return (api?.sections(key) ?? []).map((rule) => {
    rule.warnUnknown(["name", "version", "protocol"]);
    warnProtocol(rule);
    return {
      name: rule.text("name") ?? "",
      version: rule.text("version") ?? "",
      protocol: rule.text("protocol") ?? "",
    };
  });
}

function readApiLogging(logging: Section | undefined): ConfigurationResource["apiLogging"] {
  logging?.warnUnknown(["apiLogging"]);
  const section = logging?.section("apiLogging");
  section?.warnUnknown(["enabled", "obfuscateURLs", "omitHealthChecks"]);
  return {
    enabled: section?.boolean("enabled") ?? false,
    obfuscateUrls: section?.boolean("obfuscateURLs") ?? false,
    omitHealthChecks: section?.boolean("omitHealthChecks") ?? false,
  };
}

function readPipeline(pipeline: Section | undefined): readonly PipelineHandler[] {
  pipeline?.warnUnknown(["handlers"]);
  return (pipeline?.sections("handlers") ?? []).map((handler) => {
    handler.warnUnknown(["name", "type", "version", "selector"]);
    return {
      name: handler.requiredText("name", "ratelimit"),
      type: handler.requiredText("type", "middleware.http.ratelimit"),
      version: handler.text("version") || "v1",
    };
  });
}

function readSecretScopes(secrets: Section | undefined): readonly SecretScope[] {
  secrets?.warnUnknown(["scopes"]);
  const stores = new Set<string>();
  return (secrets?.sections("scopes") ?? []).map((scope): SecretScope => {
    scope.warnUnknown(["storeName", "defaultAccess", "allowedSecrets", "deniedSecrets"]);
    const storeName = scope.requiredText("storeName", "my-secret-store");
    if (storeName !== "" && stores.has(storeName)) {
      scope.problems.error(
        scope.positionOf("storeName"),
        `${storeName} storeName is repeated in secrets configuration`,
      );
    }
    stores.add(storeName);
    const access = (scope.text("defaultAccess") || "allow").toLowerCase();
    if (access !== "allow" && access !== "deny") {
      const text = `defaultAccess ${goQuote(access)} can be either allow or deny`;
      scope.problems.error(scope.positionOf("defaultAccess"), text);
    }
    return {
      storeName,
      defaultAccess: access === "deny" ? "deny" : "allow",
      allowedSecrets: scope.texts("allowedSecrets") ?? [],
      deniedSecrets: scope.texts("deniedSecrets") ?? [],
    };
  });
}

/** A rule for no protocol lets everything through, which nobody means. */
function warnProtocol(rule: Section): void {
  const protocol = rule.text("protocol") ?? "";
  if (["http", "grpc"].includes(protocol.toLowerCase())) return;
  const name = rule.nameOf("protocol");
  const text = `${name} is ${JSON.stringify(protocol)}, so it has no effect; write http or grpc`;
  rule.problems.warn(rule.positionOf("protocol"), text);
}
