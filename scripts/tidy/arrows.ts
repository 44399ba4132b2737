// Which folder may import which, as one table. A zone is a part of the tree; the longest matching prefix counts.
import { importsOf, type Source } from "./source.ts";

interface Zone {
  /** Path prefix; `*` stands for one path segment. */
  readonly prefix: string;
  /** Prefixes it may import besides itself; `*` here is the segment matched in `prefix`. */
  readonly may: readonly string[];
  /** Why, in the words of the failure. */
  readonly why: string;
}

const mesh = "mesh/index.ts";
/** Finding, starting and stopping the shared nats-server: public too, for the CLI. */
const meshServer = "mesh/server/index.ts";
const shared = [mesh, "src/lib/", "src/config/", "src/telemetry/"];
const wire = ["src/api/", "proto/gen/"];

/** From the leaves up. Everything in `src` that is not listed here (main, runtime) assembles and may import all. */
export const zones: readonly Zone[] = [
  { prefix: "mesh/", may: [], why: "mesh is a library of its own: it imports nothing of src, proto or test" },
  { prefix: "src/lib/", may: [mesh], why: "lib is the floor of src: it knows no other part" },
  {
    prefix: "src/config/",
    may: [mesh, "src/lib/", "src/telemetry/"],
    why: "config is read before anything runs",
  },
  {
    prefix: "src/telemetry/",
    may: [mesh, "src/lib/", "src/config/"],
    why: "telemetry serves all parts, knows none",
  },
  {
    prefix: "src/api/",
    may: [...shared, "proto/gen/", "src/components/component.ts", "src/components/open.ts"],
    why: "api is what blocks share; it knows no block",
  },
  {
    prefix: "src/middleware/",
    may: [...shared, "src/api/"],
    why: "pipelines run middlewares for both directions; they know neither sockets nor components",
  },
  { prefix: "src/resiliency/", may: [...shared, "src/api/"], why: "policies wrap calls of any part" },
  {
    prefix: "src/app/",
    may: [...shared, ...wire, "src/resiliency/", "src/middleware/"],
    why: "app is the way out to the app only",
  },
  {
    prefix: "src/ingress/",
    may: [...shared, ...wire, "src/blocks/block.ts", "src/middleware/"],
    why: "ingress is sockets and framing; it meets blocks through their tables",
  },
  {
    prefix: "src/components/connect/",
    may: [mesh, "src/lib/", "src/telemetry/", "src/components/component.ts"],
    why: "connections serve components of any block and know none",
  },
  {
    prefix: "src/components/pluggable/",
    may: [
      ...shared,
      ...wire,
      "src/app/grpc.ts",
      "src/blocks/state/port.ts",
      "src/blocks/pubsub/port.ts",
      "src/blocks/bindings/port.ts",
      "src/blocks/secrets/port.ts",
      "src/components/component.ts",
      "src/components/index.gen.ts",
    ],
    why: "plug-ins fill the ports of four blocks over the gRPC client that the app is called with",
  },
  {
    prefix: "src/components/*/",
    may: [
      mesh,
      "src/lib/",
      "src/config/",
      "src/blocks/*/port.ts",
      "src/middleware/port.ts",
      "src/middleware/reply.ts",
      "src/components/component.ts",
      "src/components/connect/",
    ],
    why: "a component sees only the port it fills, its connection, lib, config types and the public mesh",
  },
  {
    prefix: "src/components/",
    may: [...shared, "src/api/", "src/components/", "src/blocks/secrets/port.ts"],
    why: "opening components needs no block, only the port of the secrets that they refer to",
  },
  {
    prefix: "src/blocks/outbox/",
    may: [
      ...shared,
      "src/api/",
      "src/blocks/block.ts",
      "src/blocks/pubsub/",
      "src/blocks/state/",
      "src/components/component.ts",
      "src/components/open.ts",
    ],
    why: "the outbox joins two blocks: it fills a port of state and publishes by the means of pub/sub",
  },
  {
    prefix: "src/blocks/*/",
    may: [
      ...shared,
      ...wire,
      "src/app/",
      "src/resiliency/",
      "src/blocks/block.ts",
      "src/components/component.ts",
      "src/components/open.ts",
    ],
    why: "a block knows neither the other blocks, nor the sockets, nor the runtime that starts it",
  },
  {
    prefix: "src/blocks/",
    may: [...shared, ...wire, "src/app/", "src/resiliency/", "src/components/open.ts", "src/blocks/"],
    why: "the list of blocks and their common shape know no runtime",
  },
  {
    prefix: "src/cli/",
    may: [...shared, meshServer, "src/version.ts"],
    why: "the CLI starts sidecars as processes; it does not link one in",
  },
];

/** Packages that only some folders may import: expression for the specifier, prefixes that may, why. */
const packageRules: readonly {
  readonly what: RegExp;
  readonly only: readonly string[];
  readonly why: string;
}[] = [
  {
    what: /^@nats-io\/|^nats$/,
    only: [
      "mesh/",
      "src/components/connect/nats",
      "src/components/connect/jetstream",
      "src/components/state/jetstream.ts",
      "src/components/pubsub/jetstream.ts",
      "src/components/bindings/nats.ts",
    ],
    why: "the mesh's NATS is spoken in mesh only; use what mesh/index.ts exports",
  },
  {
    what: /^(fastify|@fastify\/.*|express|koa|hono|restify|@hapi\/hapi|find-my-way)$/,
    only: ["src/ingress/"],
    why: "server frameworks stay in ingress",
  },
  {
    what: /^@marcbachmann\/cel-js$/,
    only: ["src/lib/cel.ts"],
    why: "CEL is spoken in src/lib/cel.ts only",
  },
  {
    what: /^(node:)?timers(\/promises)?$/,
    only: ["src/lib/", "mesh/clock.ts"],
    why: "take the Clock that is passed in",
  },
  { what: /^vitest$|^fast-check$/, only: [], why: "test tools stay in tests" },
];

/** Failures of all import rules for one file of `mesh` or `src` (tests excluded). */
export function arrowFailures(source: Source): string[] {
  const zone = zoneOf(source.path);
  const failures: string[] = [];
  for (const { specifier, target, line } of importsOf(source)) {
    const at = `${source.path}:${line} imports ${target ?? specifier}`;
    if (target !== undefined) {
      const why = refusal(source.path, target, zone);
      if (why !== undefined) failures.push(`${at}: ${why}`);
      continue;
    }
    for (const rule of packageRules) {
      if (!rule.what.test(specifier) || rule.only.some((prefix) => source.path.startsWith(prefix))) continue;
      failures.push(`${at}: ${rule.why}`);
    }
    if (isBlockLogic(source.path) && /^(node:)?https?2?$/.test(specifier)) {
      failures.push(
        `${at}: a block's logic knows no HTTP; decode and encode in http.ts and grpc.ts beside it`,
      );
    }
  }
  return failures;
}

interface MatchedZone extends Zone {
  /** The part of the path that `prefix` matched, e.g. `src/blocks/state/`. */
  readonly own: string;
}

function zoneOf(path: string): MatchedZone | undefined {
  for (const zone of zones) {
    const match = new RegExp(`^${zone.prefix.replace("*", "([^/]+)")}`).exec(path);
    if (match === null) continue;
    const may = zone.may.map((prefix) => prefix.replace("*", match[1] ?? "*"));
    return { ...zone, may, own: match[0] };
  }
  return undefined;
}

function refusal(from: string, target: string, zone: MatchedZone | undefined): string | undefined {
  if (target.startsWith("test/") || target.startsWith("scripts/"))
    return "the product imports no test and no script";
  if (target.startsWith("mesh/") && target !== mesh && target !== meshServer && !from.startsWith("mesh/")) {
    return "src uses the public mesh; export it from mesh/index.ts";
  }
  if (zone === undefined || target.startsWith(zone.own) || target === "package.json") return undefined;
  return zone.may.some((prefix) => target.startsWith(prefix)) ? undefined : zone.why;
}

/** `src/blocks/state/state.ts`, the file with the block's own name. */
function isBlockLogic(path: string): boolean {
  return /^src\/blocks\/([^/]+)\/\1\.ts$/.test(path);
}

/** Files of `mesh` and `src` that none of the entry points imports, directly or not. */
export function unreachable(sources: readonly Source[], entryPoints: readonly string[]): string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const seen = new Set<string>();
  const open = [...entryPoints];
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    const source = byPath.get(path);
    if (source === undefined || seen.has(path)) continue;
    seen.add(path);
    for (const { target } of importsOf(source)) if (target !== undefined) open.push(target);
  }
  return sources.map((source) => source.path).filter((path) => !seen.has(path));
}
