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

/** Ports the user gave as flags; undefined where a free one is wanted. Dapr's `-1` and `0` mean the same. */
export function givenPorts(flags: GivenFlags): { [K in keyof RunPorts]: number | undefined } {
  const port = (name: string): number | undefined => {
    const text = flags.get(name)?.at(-1) ?? "";
    return ["", "0", "-1"].includes(text) ? undefined : Number(text);
  };
  return { http: port("dapr-http-port"), grpc: port("dapr-grpc-port"), metrics: port("metrics-port") };
}

/** The flags of the sidecar: the user's, and ours where the user gave none. `made` are the values of our own. */
export function completeFlags(
  flags: GivenFlags,
  made: { appId: string; ports: RunPorts; resources: readonly string[]; config: readonly string[] },
): GivenFlags {
  const complete = new Map(flags);
  const fallback = (name: string, texts: readonly string[]): void => {
    if (!complete.has(name) && texts.length > 0) complete.set(name, texts);
  };
  fallback("app-id", [made.appId]);
  complete.set("dapr-http-port", [String(made.ports.http)]);
  complete.set("dapr-grpc-port", [String(made.ports.grpc)]);
  complete.set("metrics-port", [String(made.ports.metrics)]);
  fallback("dapr-listen-addresses", [loopback]);
  fallback("metrics-listen-address", [loopback]);
  if (!complete.has("components-path")) fallback("resources-path", made.resources);
  fallback("config", made.config);
  // Dapr's sign for "no app port" on the command line of its CLI.
  if (["0", "-1"].includes(complete.get("app-port")?.at(-1) ?? "")) complete.delete("app-port");
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
    .replaceAll(/[^A-Za-z0-9_-]+/g, "-");
  return `${stem || "app"}-${randomHex}`;
}
