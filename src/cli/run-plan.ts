/** What `weft run` will start, decided before anything is started: ids, ports, arguments, environments. Pure. */
import { basename } from "node:path";
import type { SidecarOptions } from "../config/options.ts";
import type { SidecarAddress } from "./sidecar-api.ts";
import { flagArguments, type GivenFlags } from "./sidecar-flags.ts";

export type RunPlan = {
  readonly appId: string;
  /** Program and arguments; empty to run the sidecar alone. */
  readonly command: readonly string[];
  /** 0 when the app takes no calls. */
  readonly appPort: number;
  readonly ports: RunPorts;
  readonly sidecarArgs: readonly string[];
  /** What the app is told about itself and its sidecar. */
  readonly appEnv: Readonly<Record<string, string>>;
  readonly sidecar: SidecarAddress;
  readonly apiToken: string | undefined;
  /** How long the sidecar may take to end, ms; Infinity when the user said so. */
  readonly sidecarGraceMs: number;
};

export type RunPorts = { readonly http: number; readonly grpc: number; readonly metrics: number };

/** Time for the sidecar beyond its own grace period to end what it could not finish, ms. */
const slackMs = 5_000;
/** The API is for the app beside the sidecar; whoever wants more says so. */
const loopback = "127.0.0.1";
export const portFlags: ReadonlySet<string> = new Set([
  "app-port",
  "dapr-http-port",
  "dapr-grpc-port",
  "metrics-port",
]);

/** Where the user gave no port; Dapr's `-1` and `0` mean the same. */
const noPort: ReadonlySet<string> = new Set(["", "0", "-1"]);

/**
 * The flags of the sidecar: the user's, and where the user gave none those of `made`. Faults of the user's values are
 * left to who reads them.
 */
export function completeFlags(
  given: GivenFlags,
  made: { appId: string; ports: RunPorts; resources: readonly string[]; config: readonly string[] },
): GivenFlags {
  const complete = new Map(
    [...given].filter(([name, texts]) => !portFlags.has(name) || !noPort.has(texts.at(-1) ?? "")),
  );
  const add = (name: string, texts: readonly string[]): void => {
    if (!complete.has(name) && texts.length > 0) complete.set(name, texts);
  };
  add("app-id", [made.appId]);
  add("dapr-http-port", [String(made.ports.http)]);
  add("dapr-grpc-port", [String(made.ports.grpc)]);
  add("metrics-port", [String(made.ports.metrics)]);
  add("dapr-listen-addresses", [loopback]);
  add("metrics-listen-address", [loopback]);
  if (!complete.has("components-path")) add("resources-path", made.resources);
  add("config", made.config);
  return complete;
}

/** `options` are what the sidecar makes of these flags. */
export function planRun(flags: GivenFlags, options: SidecarOptions, command: readonly string[]): RunPlan {
  const { api, app, appId, metrics, shutdown } = options;
  const ports = { http: api.httpPort, grpc: api.grpcPort, metrics: metrics.port };
  const host = api.addresses.find((address) => ["", "127.0.0.1", "0.0.0.0"].includes(address));
  return {
    appId,
    command,
    appPort: app.port,
    ports,
    sidecarArgs: flagArguments(flags),
    appEnv: {
      APP_ID: appId,
      ...(app.port > 0 ? { APP_PORT: String(app.port) } : {}),
      APP_PROTOCOL: app.protocol,
      APP_CHANNEL_ADDRESS: app.address,
      DAPR_HTTP_PORT: String(ports.http),
      DAPR_GRPC_PORT: String(ports.grpc),
      DAPR_METRICS_PORT: String(ports.metrics),
    },
    sidecar:
      api.socketDirectory === undefined
        ? { host: host === undefined ? (api.addresses[0] ?? loopback) : loopback, port: ports.http }
        : { socketPath: `${api.socketDirectory}/dapr-${appId}-http.socket` },
    apiToken: api.apiToken,
    sidecarGraceMs: shutdown.blockMs + shutdown.graceMs + slackMs,
  };
}

/** An id for an app without one: its program's name and some random hex digits. No dots, which ids may not have. */
export function makeAppId(command: readonly string[], randomHex: string): string {
  const stem = basename(command[0] ?? "app")
    .replace(/\.\w+$/, "")
    .replaceAll(/[^A-Za-z0-9_]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  return `${stem || "app"}-${randomHex}`;
}
