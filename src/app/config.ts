/**
 * What an HTTP app says about itself in GET /dapr/config: the actor types it hosts and their settings. Asked once in
 * the life of a sidecar, when the app is first well.
 */
import type { Clock } from "../../mesh/index.ts";
import { parseGoDuration } from "../lib/duration.ts";
import { jsonFields } from "../lib/json-fields.ts";
import type { Log } from "../telemetry/log.ts";
import type { AppChannel } from "./channel.ts";
import { textOf } from "../lib/thrown.ts";

/** How the instances of an actor type live. */
export type ActorSettings = {
  readonly idleTimeoutMs: number;
  /** How long a call that runs may hold back the move of its actor to another host. */
  readonly drainTimeoutMs: number;
  readonly reentrancy: { readonly enabled: boolean; readonly maxStackDepth: number };
};

export type AppConfig = {
  /** Actor types that the app hosts, in its order. */
  readonly entities: readonly string[];
  /** Settings of every type in `entities`. */
  readonly settings: ReadonlyMap<string, ActorSettings>;
  /** False: calls that run are cancelled when their actor moves. */
  readonly drainRebalancedActors: boolean;
};

export const emptyAppConfig: AppConfig = { entities: [], settings: new Map(), drainRebalancedActors: true };

const defaultIdleMs = 60 * 60_000;
const defaultDrainMs = 2_000;
const defaultStackDepth = 32;
/** An app that takes longer than this to answer hosts nothing. */
const answerTimeoutMs = 30_000;

export type AskConfigParts = {
  readonly app: Pick<AppChannel, "http" | "protocol">;
  readonly appId: string;
  /** --actors-disseminate-timeout: calls must have drained before it. */
  readonly disseminateTimeoutMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

/** Empty for apps that are no HTTP servers, have no such page or say nonsense, which is logged. Never rejects. */
export async function askForConfig(parts: AskConfigParts): Promise<AppConfig> {
  const { app, appId, clock, log } = parts;
  if (app.protocol !== "http") return emptyAppConfig;
  const limit = new AbortController();
  const late = (): void => limit.abort(new Error(`no answer within ${answerTimeoutMs / 1000} s`));
  const timer = clock.setTimeout(late, answerTimeoutMs);
  try {
    const headers = ["dapr-app-id", appId, "content-type", "application/json"];
    const request = { verb: "GET", path: "/dapr/config", headers, body: undefined };
    const { status, body } = await app.http(request, limit.signal);
    if (status === 200) return readAppConfig(body.toString(), parts);
    log.debug(`the app answered GET /dapr/config with status ${status}: it hosts no actors`);
  } catch (error) {
    log.warn(`the app's answer to GET /dapr/config cannot be used: ${textOf(error)}`);
  } finally {
    timer.cancel();
  }
  return emptyAppConfig;
}

const json = jsonFields((problem) => new Error(problem));

/** Rejects a text that is no such JSON; single settings that cannot be used are logged. */
export function readAppConfig(
  text: string,
  parts: Pick<AskConfigParts, "disseminateTimeoutMs" | "log">,
): AppConfig {
  const fields = json.fields(JSON.parse(text), "the answer");
  const entities = texts(fields["entities"], '"entities"');
  const base = readSettings(fields, "the app", parts, "refuse");
  const drain = fields["drainrebalancedactors"];
  if (fields["remindersstoragepartitions"]) {
    parts.log.warn("remindersStoragePartitions in the app's configuration has no effect any more");
  }
  const settings = new Map<string, ActorSettings>();
  if (base !== undefined) for (const entity of entities) settings.set(entity, base);
  for (const [i, item] of json.array(fields["entitiesconfig"], '"entitiesConfig"').entries()) {
    const what = `item ${i + 1} of "entitiesConfig"`;
    const own = json.fields(item, what);
    const ownSettings = readSettings(own, what, parts, "default")!;
    for (const entity of texts(own["entities"], `"entities" of ${what}`)) {
      if (entities.includes(entity)) settings.set(entity, ownSettings);
      else parts.log.warn(`${what} names the type ${JSON.stringify(entity)}, which is not in "entities"`);
    }
  }
  return {
    entities: base === undefined ? [] : entities,
    settings: base === undefined ? new Map() : settings,
    drainRebalancedActors: drain === undefined || drain === null || bool(drain, '"drainRebalancedActors"'),
  };
}

/** Undefined when a duration cannot be read and `broken` says that nothing may stand in for it. */
function readSettings(
  fields: Readonly<Record<string, unknown>>,
  what: string,
  parts: Pick<AskConfigParts, "disseminateTimeoutMs" | "log">,
  broken: "refuse" | "default",
): ActorSettings | undefined {
  const read = (name: string, standard: number): number | undefined => {
    const text = json.text(fields[name.toLowerCase()], `"${name}" of ${what}`);
    if (text === "") return standard;
    try {
      return parseGoDuration(text);
    } catch (error) {
      const then = broken === "refuse" ? "none of its actor types is hosted" : "the default is used";
      parts.log.warn(`"${name}" of ${what}: ${textOf(error)}; ${then}`);
      return broken === "refuse" ? undefined : standard;
    }
  };
  const idleTimeoutMs = read("actorIdleTimeout", defaultIdleMs);
  const drainTimeoutMs = read("drainOngoingCallTimeout", defaultDrainMs);
  if (idleTimeoutMs === undefined || drainTimeoutMs === undefined) return undefined;
  const reentrancy = json.fields(fields["reentrancy"], `"reentrancy" of ${what}`);
  const { enabled, maxstackdepth: depth } = reentrancy;
  return {
    idleTimeoutMs,
    drainTimeoutMs: withinDissemination(drainTimeoutMs, what, parts),
    reentrancy: {
      enabled: enabled !== undefined && enabled !== null && bool(enabled, `"enabled" of ${what}`),
      maxStackDepth:
        depth === undefined || depth === null
          ? defaultStackDepth
          : json.integer(depth, `"maxStackDepth" of ${what}`),
    },
  };
}

/** Who drains for as long as hosts are told of a change would miss the change. */
function withinDissemination(
  drainMs: number,
  what: string,
  { disseminateTimeoutMs, log }: Pick<AskConfigParts, "disseminateTimeoutMs" | "log">,
): number {
  if (drainMs < disseminateTimeoutMs) return drainMs;
  const clamped = Math.max(defaultDrainMs, disseminateTimeoutMs * 0.8);
  log.warn(
    `drainOngoingCallTimeout of ${what} (${drainMs} ms) meets or exceeds the dissemination timeout ` +
      `(${disseminateTimeoutMs} ms, --actors-disseminate-timeout); ${clamped} ms are used`,
  );
  return clamped;
}

function texts(value: unknown, what: string): string[] {
  return json.array(value, what).map((item, i) => json.text(item, `item ${i + 1} of ${what}`));
}

function bool(value: unknown, what: string): boolean {
  if (typeof value !== "boolean")
    throw new Error(`${what} must be true or false, but is of type ${typeof value}`);
  return value;
}
