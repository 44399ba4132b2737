/**
 * Reads the body of a Resiliency document. Its errors stay with the resource: one that cannot be used is still listed.
 */
import { DurationError, parseDurationOrMilliseconds } from "../../lib/duration.ts";
import { didYouMean } from "../../lib/nearest.ts";
import type { YamlMap } from "../../lib/yaml.ts";
import type { Origin } from "../problem.ts";
import { ProblemList, Section } from "../section.ts";
import type { ResourceHeader } from "./header.ts";
import type {
  ActorBreakerScope,
  ActorTarget,
  AppTarget,
  BreakerPolicy,
  CodeRange,
  ComponentTarget,
  PolicyNames,
  ResiliencyResource,
  RetryPolicy,
} from "./resiliency.ts";

const DEFAULT_WAIT_MS = 5_000;
const DEFAULT_MAX_WAIT_MS = 60_000;
const DEFAULT_OPEN_MS = 60_000;
const DEFAULT_APP_BREAKERS = 100;
const DEFAULT_ACTOR_BREAKERS = 5_000;
/** More breakers of one target than this are refused: a typing error would fill the memory. */
const MAX_BREAKERS = 1_000_000;
const TARGET_KEYS = ["timeout", "retry", "circuitBreaker"];
const SCOPES: readonly ActorBreakerScope[] = ["type", "id", "both"];

/** The resource, with what is wrong with it. Warnings go to `problems`. */
export function parseResiliency(
  root: YamlMap,
  header: ResourceHeader,
  problems: ProblemList,
): ResiliencyResource {
  const own = new ProblemList(problems.file);
  const top = new Section(own, "", root);
  top.warnUnknown(["apiVersion", "kind", "metadata", "spec", "scopes"]);
  const spec = top.section("spec");
  if (top.node("spec") === undefined) {
    own.error(top.positionOf("spec"), "spec is missing, write spec.policies and spec.targets");
  }
  spec?.warnUnknown(["policies", "targets"]);
  const parts = { ...parsePolicies(spec?.section("policies")), ...parseTargets(spec?.section("targets")) };
  for (const problem of own.all) if (problem.severity === "warning") problems.warn(problem, problem.message);
  const faults = own.all.filter(({ severity }) => severity === "error");
  return { kind: "Resiliency", ...header, faults, ...parts };
}

function parsePolicies(
  policies: Section | undefined,
): Pick<ResiliencyResource, "timeouts" | "retries" | "circuitBreakers"> {
  policies?.warnUnknown(["timeouts", "retries", "circuitBreakers"]);
  const timeouts = policies?.section("timeouts");
  return {
    timeouts: (timeouts?.keys() ?? []).map((name) => ({
      name,
      timeoutMs: duration(timeouts!, name, 0),
      origin: timeouts!.problems.origin(timeouts!.positionOf(name)),
    })),
    retries: named(policies, "retries").map(parseRetry),
    circuitBreakers: named(policies, "circuitBreakers").map(parseBreaker),
  };
}

function parseTargets(
  targets: Section | undefined,
): Pick<ResiliencyResource, "apps" | "actors" | "components"> {
  targets?.warnUnknown(["apps", "actors", "components"]);
  return {
    apps: named(targets, "apps").map(parseApp),
    actors: named(targets, "actors").map(parseActor),
    components: named(targets, "components").map(parseComponent),
  };
}

type Named = { readonly name: string; readonly section: Section; readonly origin: Origin };

/** The entries of a mapping of mappings. An entry without a value is an empty one. */
function named(parent: Section | undefined, key: string): Named[] {
  const all = parent?.section(key);
  return (all?.keys() ?? []).flatMap((name) => {
    const section = all!.section(name) ?? (all!.node(name) === undefined ? emptyAt(all!, name) : undefined);
    return section === undefined
      ? []
      : [{ name, section, origin: all!.problems.origin(all!.positionOf(name)) }];
  });
}

function emptyAt(parent: Section, key: string): Section {
  const { line, column } = parent.positionOf(key);
  const map: YamlMap = { kind: "map", entries: new Map(), line, column };
  return new Section(parent.problems, parent.nameOf(key), map);
}

function parseRetry({ name, section, origin }: Named): RetryPolicy {
  section.warnUnknown(["policy", "duration", "maxInterval", "maxRetries", "matching"]);
  const matching = section.section("matching");
  matching?.warnUnknown(["httpStatusCodes", "gRPCStatusCodes"]);
  return {
    name,
    policy: parseKind(section),
    waitMs: duration(section, "duration", DEFAULT_WAIT_MS),
    maxWaitMs: duration(section, "maxInterval", DEFAULT_MAX_WAIT_MS),
    maxRetries: Math.max(-1, section.integer("maxRetries") ?? -1),
    httpCodes: codes(matching, "httpStatusCodes", 100, 599),
    grpcCodes: codes(matching, "gRPCStatusCodes", 0, 16),
    origin,
  };
}

function parseKind(section: Section): RetryPolicy["policy"] {
  const text = section.text("policy") ?? "";
  const kind = text.toLowerCase();
  if (kind === "" || kind === "constant") return "constant";
  if (kind === "exponential") return "exponential";
  const known = ["constant", "exponential"];
  const fault = `${JSON.stringify(text)} is not known${didYouMean(text, known)} (known: ${known.join(", ")})`;
  section.problems.error(section.positionOf("policy"), `${section.nameOf("policy")} ${fault}`);
  return "constant";
}

function parseBreaker({ name, section, origin }: Named): BreakerPolicy {
  section.warnUnknown(["maxRequests", "interval", "timeout", "trip"]);
  return {
    name,
    maxRequests: count(section, "maxRequests", 1) || 1,
    intervalMs: duration(section, "interval", 0),
    openMs: duration(section, "timeout", DEFAULT_OPEN_MS) || DEFAULT_OPEN_MS,
    trip: section.text("trip")?.trim() ?? "",
    origin,
    tripOrigin: section.problems.origin(section.positionOf("trip")),
  };
}

function parseApp({ name, section }: Named): AppTarget {
  section.warnUnknown([...TARGET_KEYS, "circuitBreakerCacheSize"]);
  return { id: name, ...policyNames(section), breakerCount: breakerCount(section, DEFAULT_APP_BREAKERS) };
}

function parseActor({ name, section }: Named): ActorTarget {
  section.warnUnknown([...TARGET_KEYS, "circuitBreakerScope", "circuitBreakerCacheSize"]);
  return {
    type: name,
    ...policyNames(section),
    breakerScope: parseScope(section),
    breakerCount: breakerCount(section, DEFAULT_ACTOR_BREAKERS),
  };
}

function parseScope(section: Section): ActorBreakerScope {
  const text = section.text("circuitBreakerScope") ?? "";
  if (text === "") return "type";
  const found = SCOPES.find((scope) => scope === text.toLowerCase());
  if (found !== undefined) return found;
  const fault = `${JSON.stringify(text)} is not known, write ${SCOPES.join(", ")}`;
  section.problems.error(
    section.positionOf("circuitBreakerScope"),
    `${section.nameOf("circuitBreakerScope")} ${fault}`,
  );
  return "type";
}

function parseComponent({ name, section }: Named): ComponentTarget {
  section.warnUnknown(["inbound", "outbound"]);
  const direction = (key: string): PolicyNames | undefined => {
    const part = section.section(key);
    part?.warnUnknown(TARGET_KEYS);
    return part && policyNames(part);
  };
  return { name, inbound: direction("inbound"), outbound: direction("outbound") };
}

function policyNames(section: Section): PolicyNames {
  return {
    timeout: section.text("timeout") ?? "",
    retry: section.text("retry") ?? "",
    circuitBreaker: section.text("circuitBreaker") ?? "",
    origin: section.problems.origin(section.at),
  };
}

function breakerCount(section: Section, otherwise: number): number {
  return Math.min(count(section, "circuitBreakerCacheSize", otherwise) || otherwise, MAX_BREAKERS);
}

function count(section: Section, key: string, otherwise: number): number {
  const value = section.integer(key) ?? otherwise;
  if (value >= 0) return value;
  section.problems.error(
    section.positionOf(key),
    `${section.nameOf(key)} is ${value}, it may not be negative`,
  );
  return otherwise;
}

/** Milliseconds of a duration, or `otherwise` when there is none. */
function duration(section: Section, key: string, otherwise: number): number {
  const text = section.text(key);
  if (text === undefined || text === "") return otherwise;
  const fix = 'write for example "500ms", "5s" or "1m30s"; a plain number is milliseconds';
  try {
    const valueMs = parseDurationOrMilliseconds(text);
    if (valueMs >= 0) return valueMs;
    section.problems.error(
      section.positionOf(key),
      `${section.nameOf(key)} ${text} may not be negative, ${fix}`,
    );
  } catch (error) {
    if (!(error instanceof DurationError)) throw error;
    section.problems.error(section.positionOf(key), `${section.nameOf(key)}: ${error.message}, ${fix}`);
  }
  return otherwise;
}

/** `429,500-599`; undefined when nothing is written, which means all codes. */
function codes(
  section: Section | undefined,
  key: string,
  min: number,
  max: number,
): readonly CodeRange[] | undefined {
  const text = section?.text(key)?.trim() ?? "";
  if (text === "") return undefined;
  return text.split(",").map((part) => {
    const match = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || first < min || last > max || first > last) {
      const fix = `write codes from ${min} to ${max}, such as "${min === 0 ? "2,13-14" : "429,500-599"}"`;
      section!.problems.error(
        section!.positionOf(key),
        `${section!.nameOf(key)}: ${JSON.stringify(part.trim())} is no code and no range of codes, ${fix}`,
      );
    }
    return { first, last };
  });
}
