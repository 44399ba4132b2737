/**
 * The settings of one sidecar: flags and environment checked once and turned into typed, frozen values.
 * Every duration is in milliseconds and every size in bytes, as the field names say.
 */
import { isTruthy } from "../lib/truthy.ts";
import { deepFreeze } from "../lib/freeze.ts";
import { goQuote } from "../lib/go-quote.ts";
import { didYouMean } from "../lib/nearest.ts";
import type { FlagName } from "./flag-table.ts";
import { readOptionalPort, readPort, readSize, readWord } from "./flag-values.ts";
import type { Environment, Flags } from "./flags.ts";
import { SettingError } from "./setting-error.ts";

export type AppProtocol = "http" | "https" | "h2c" | "grpc" | "grpcs";
export type LogLevel = "debug" | "info" | "warn" | "error" | "fatal";

export interface SidecarOptions {
  readonly appId: string;
  /** Environment NAMESPACE, else `default`. */
  readonly namespace: string;
  /** Environment NAMESPACE as it is; undefined when unset. */
  readonly namespaceEnv: string | undefined;
  readonly mode: "standalone" | "kubernetes";
  readonly app: AppOptions;
  readonly api: ApiOptions;
  readonly resources: ResourceOptions;
  readonly mesh: MeshOptions;
  readonly log: LogOptions;
  readonly metrics: ListenerOptions;
  readonly profiling: ListenerOptions;
  readonly shutdown: ShutdownOptions;
  /** --actors-disseminate-timeout. */
  readonly actorsDisseminateTimeoutMs: number;
  /** Environment DAPR_HOST_IP: what others see as this sidecar's address; undefined to find it out. */
  readonly hostIp: string | undefined;
  /** Sentences to log as warnings at the start: deprecated flags and values that are ignored. */
  readonly warnings: readonly string[];
}

export interface AppOptions {
  /** 0 when there is no app to call. */
  readonly port: number;
  readonly protocol: AppProtocol;
  readonly address: string;
  /** Infinity for no limit. */
  readonly maxConcurrency: number;
  /** Undefined when the app is not probed. */
  readonly health: AppHealthOptions | undefined;
  /** Environment APP_API_TOKEN, sent to the app; undefined for none. */
  readonly apiToken: string | undefined;
  /** GET /dapr/config is not called. */
  readonly skipConfig: boolean;
  /** GET /dapr/subscribe is not called. */
  readonly skipSubscribe: boolean;
  readonly bindingOptionsTimeoutMs: number;
}

export interface AppHealthOptions {
  readonly path: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Failures after which the app counts as unhealthy. */
  readonly threshold: number;
}

export interface ApiOptions {
  readonly httpPort: number;
  readonly grpcPort: number;
  /** Empty string for all addresses; at least one entry. */
  readonly addresses: readonly string[];
  /** Directory of socket files that replace both ports. */
  readonly socketDirectory: string | undefined;
  readonly publicPort: number | undefined;
  readonly publicAddress: string;
  /** Accepted and unused: sidecars talk over NATS. */
  readonly internalGrpcPort: number | undefined;
  /** Largest HTTP request body; Infinity for no limit. */
  readonly maxBodyBytes: number;
  /** Room for request headers. */
  readonly readBufferBytes: number;
  /** Undefined when CORS is off. Entries are as written: not trimmed. */
  readonly allowedOrigins: readonly string[] | undefined;
  /** HTTP/2 without TLS on the HTTP port; off with environment DAPR_HTTP_DISABLE_H2C. */
  readonly h2c: boolean;
  /** Environment DAPR_API_TOKEN, asked of every caller; undefined lets everyone in. */
  readonly apiToken: string | undefined;
  /** Undefined when the Configuration decides. */
  readonly apiLogging: boolean | undefined;
}

export interface ResourceOptions {
  readonly directories: readonly string[];
  readonly configFiles: readonly string[];
  readonly reconcileIntervalMs: number;
  /** Where pluggable components put their sockets. */
  readonly componentSocketsDirectory: string;
  readonly builtinKubernetesSecretStore: boolean;
}

/** How to reach NATS. Empty strings never occur: a value is there or undefined. */
export interface MeshOptions {
  /** Empty to find or start a server on this machine. */
  readonly natsUrls: readonly string[];
  readonly credsFile: string | undefined;
  readonly nkeyFile: string | undefined;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly tlsCaFile: string | undefined;
  readonly tlsCertFile: string | undefined;
  readonly tlsKeyFile: string | undefined;
  /** Program to start when no server is found. */
  readonly serverBinary: string | undefined;
  /** Port of this machine where a server is looked for and started. */
  readonly natsPort: number;
  /** Directory for a server that is started here; undefined for the default place. */
  readonly home: string | undefined;
  /** First token of every subject. */
  readonly root: string;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly json: boolean;
  /** Undefined for standard output. */
  readonly file: string | undefined;
}

export interface ListenerOptions {
  readonly enabled: boolean;
  readonly port: number;
  readonly address: string;
}

export interface ShutdownOptions {
  /** Infinity to wait for ever. */
  readonly graceMs: number;
  /** How long to keep serving after a signal; 0 for not at all. */
  readonly blockMs: number;
}

const DEFAULT_BODY_BYTES = 4 * 1024 * 1024;
const DEFAULT_READ_BUFFER_BYTES = 4 * 1024;
const DEFAULT_RECONCILE_MS = 60_000;
const PROTOCOLS: readonly AppProtocol[] = ["http", "https", "h2c", "grpc", "grpcs"];
const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error", "fatal"];
const INIT_ENDPOINTS = ["config", "subscribe"];
const MAX_INT32 = 2 ** 31 - 1;

/**
 * Checks flags and environment and makes the options of them.
 * @throws {SettingError} for the first setting that cannot be used.
 */
export function resolveOptions(flags: Flags, env: Environment): SidecarOptions {
  const { values } = flags;
  const warnings: string[] = [];
  const mode = readWord("mode", values.mode, ["standalone", "kubernetes"] as const);
  checkAppId(values["app-id"], mode);
  const api = resolveApi(flags, env, warnings);
  const app = resolveApp(flags, env, warnings);
  checkPorts(app, api);
  if (values["scheduler-job-streams"] < 1) throw tooSmall("scheduler-job-streams");
  if (values["actors-disseminate-timeout"] <= 0) throw tooSmall("actors-disseminate-timeout");
  return deepFreeze<SidecarOptions>({
    appId: values["app-id"],
    namespace: env["NAMESPACE"] || "default",
    namespaceEnv: env["NAMESPACE"] || undefined,
    mode,
    app,
    api,
    resources: resolveResources(flags, env, warnings),
    mesh: resolveMesh(flags),
    log: {
      level: resolveLevel(values["log-level"]),
      json: values["log-as-json"],
      file: values["log-file"] || undefined,
    },
    metrics: {
      enabled: values["enable-metrics"],
      port: readPort(flags, "metrics-port"),
      address: withoutBrackets(values["metrics-listen-address"]),
    },
    profiling: { enabled: values["enable-profiling"], port: readPort(flags, "profile-port"), address: "" },
    shutdown: {
      graceMs: resolveGrace(values["dapr-graceful-shutdown-seconds"]),
      blockMs: Math.max(0, values["dapr-block-shutdown-duration"]),
    },
    actorsDisseminateTimeoutMs: values["actors-disseminate-timeout"],
    hostIp: env["DAPR_HOST_IP"] || undefined,
    warnings,
  });
}

/**
 * Variables that daprd sets for itself and that a Configuration file may therefore use, on top of `env`.
 */
export function configurationEnv(options: SidecarOptions, env: Environment): Environment {
  const { app, api } = options;
  return {
    ...env,
    APP_ID: options.appId,
    APP_PORT: String(app.port),
    HOST_ADDRESS: options.hostIp ?? env["HOST_ADDRESS"] ?? "127.0.0.1",
    DAPR_PORT: String(api.internalGrpcPort ?? 0),
    DAPR_GRPC_PORT: String(api.grpcPort),
    DAPR_HTTP_PORT: String(api.httpPort),
    DAPR_METRICS_PORT: String(options.metrics.port),
    DAPR_PROFILE_PORT: String(options.profiling.port),
  };
}

function checkAppId(appId: string, mode: SidecarOptions["mode"]): void {
  if (appId === "") throw new SettingError("parameter app-id cannot be empty");
  // It becomes a part of file names (--unix-domain-socket).
  if (appId.includes("/") || appId.includes("\u0000"))
    throw new SettingError("parameter app-id cannot contain slashes");
  if (mode === "standalone" && appId.includes(".")) {
    throw new SettingError("parameter app-id cannot contain dots");
  }
}

function resolveApi(flags: Flags, env: Environment, warnings: string[]): ApiOptions {
  const { values, given } = flags;
  const origins = values["allowed-origins"];
  return {
    httpPort: readPort(flags, "dapr-http-port"),
    grpcPort: readPort(flags, "dapr-grpc-port"),
    addresses: values["dapr-listen-addresses"].split(",").map(withoutBrackets),
    socketDirectory: values["unix-domain-socket"] || undefined,
    publicPort: readOptionalPort(flags, "dapr-public-port"),
    publicAddress: withoutBrackets(values["dapr-public-listen-address"]),
    internalGrpcPort: readOptionalPort(flags, "dapr-internal-grpc-port"),
    maxBodyBytes: resolveMaxBody(flags, warnings),
    readBufferBytes: resolveReadBuffer(flags, warnings),
    allowedOrigins: origins === "" ? undefined : origins.split(","),
    h2c: !isTruthy(env["DAPR_HTTP_DISABLE_H2C"]?.trim()),
    apiToken: env["DAPR_API_TOKEN"] || undefined,
    apiLogging: given.has("enable-api-logging") ? values["enable-api-logging"] : undefined,
  };
}

function resolveApp(flags: Flags, env: Environment, warnings: string[]): AppOptions {
  const { values } = flags;
  const concurrency = values["app-max-concurrency"];
  const skipped = values["disable-init-endpoints"];
  for (const name of skipped) {
    if (INIT_ENDPOINTS.includes(name)) continue;
    const hint = didYouMean(name, INIT_ENDPOINTS);
    warnings.push(`--disable-init-endpoints: "${name}" is not known${hint} (known: config, subscribe)`);
  }
  return {
    port: values["app-port"] === "" ? 0 : readPort(flags, "app-port"),
    protocol: resolveProtocol(flags, warnings),
    address: withoutBrackets(values["app-channel-address"]) || "127.0.0.1",
    maxConcurrency: concurrency > 0 ? concurrency : Number.POSITIVE_INFINITY,
    health: resolveHealth(flags),
    apiToken: env["APP_API_TOKEN"] || undefined,
    skipConfig: skipped.includes("config"),
    skipSubscribe: skipped.includes("subscribe"),
    bindingOptionsTimeoutMs: values["app-binding-options-timeout"],
  };
}

/** Dapr puts host and port together as texts, so its users write `[::1]`. */
function withoutBrackets(address: string): string {
  return address.trim().replace(/^\[(.*)\]$/, "$1");
}

function resolveProtocol(flags: Flags, warnings: string[]): AppProtocol {
  const given = flags.values["app-protocol"];
  const protocol = PROTOCOLS.find((name) => name === (given.toLowerCase() || "http"));
  if (protocol === undefined) {
    const hint = didYouMean(given, PROTOCOLS);
    throw new SettingError(
      `invalid value for 'app-protocol': ${given}${hint} (one of: ${PROTOCOLS.join(", ")})`,
    );
  }
  if (!flags.values["app-ssl"] || (protocol !== "http" && protocol !== "grpc")) return protocol;
  const secure = protocol === "http" ? "https" : "grpcs";
  warnings.push(`The 'app-ssl' flag is deprecated; use 'app-protocol=${secure}' instead`);
  return secure;
}

function resolveHealth(flags: Flags): AppHealthOptions | undefined {
  const { values } = flags;
  const orDefault = (value: number, fallback: number): number => (value > 0 ? value : fallback);
  const intervalMs = orDefault(values["app-health-probe-interval"], 5) * 1000;
  const timeoutMs = orDefault(values["app-health-probe-timeout"], 500);
  if (timeoutMs > intervalMs) {
    throw new SettingError("value for 'health-probe-timeout' must be smaller than 'health-probe-interval'");
  }
  if (!values["enable-app-health-check"]) return undefined;
  const threshold = values["app-health-threshold"];
  return {
    path: values["app-health-check-path"],
    intervalMs,
    timeoutMs,
    threshold: threshold >= 1 && threshold < MAX_INT32 ? threshold : 3,
  };
}

function checkPorts(app: AppOptions, api: ApiOptions): void {
  if (app.port !== 0 && app.port === api.httpPort) {
    throw new SettingError(`the 'dapr-http-port' argument value ${api.httpPort} conflicts with 'app-port'`);
  }
  if (app.port !== 0 && app.port === api.grpcPort) {
    throw new SettingError(`the 'dapr-grpc-port' argument value ${api.grpcPort} conflicts with 'app-port'`);
  }
  if (api.httpPort !== 0 && api.httpPort === api.grpcPort && api.socketDirectory === undefined) {
    throw new SettingError(
      `the 'dapr-grpc-port' argument value ${api.grpcPort} conflicts with 'dapr-http-port'`,
    );
  }
}

function resolveResources(flags: Flags, env: Environment, warnings: string[]): ResourceOptions {
  const { values } = flags;
  const alias = values["components-path"];
  if (alias !== "") warnings.push("The 'components-path' flag is deprecated; use 'resources-path' instead");
  const directories = values["resources-path"];
  const interval = values["hot-reload-reconcile-interval"];
  return {
    directories: directories.length === 0 && alias !== "" ? [alias] : [...directories],
    configFiles: values.config.filter((file) => file !== ""),
    reconcileIntervalMs: interval > 0 ? interval : DEFAULT_RECONCILE_MS,
    componentSocketsDirectory: env["DAPR_COMPONENTS_SOCKETS_FOLDER"] || "/tmp/dapr-components-sockets",
    builtinKubernetesSecretStore: !values["disable-builtin-k8s-secret-store"],
  };
}

function resolveMesh(flags: Flags): MeshOptions {
  const { values } = flags;
  const root = values["mesh-root"];
  if (!/^[A-Za-z0-9_-]+$/.test(root)) {
    throw new SettingError(
      `invalid value for 'mesh-root': ${goQuote(root)}, use only letters, digits, "-" and "_"`,
    );
  }
  for (const [one, other] of [
    ["nats-tls-cert", "nats-tls-key"],
    ["nats-tls-key", "nats-tls-cert"],
    ["nats-password", "nats-user"],
  ] as const) {
    if (values[one] !== "" && values[other] === "") throw new SettingError(`'${one}' also needs '${other}'`);
  }
  return {
    natsUrls: values["nats-url"]
      .split(",")
      .map((url) => url.trim())
      .filter((url) => url !== ""),
    credsFile: values["nats-creds"] || undefined,
    nkeyFile: values["nats-nkey"] || undefined,
    user: values["nats-user"] || undefined,
    password: values["nats-password"] || undefined,
    tlsCaFile: values["nats-tls-ca"] || undefined,
    tlsCertFile: values["nats-tls-cert"] || undefined,
    tlsKeyFile: values["nats-tls-key"] || undefined,
    serverBinary: values["nats-server"] || undefined,
    natsPort: readPort(flags, "nats-port"),
    home: values["weft-home"] || undefined,
    root,
  };
}

function resolveMaxBody(flags: Flags, warnings: string[]): number {
  const bytes = readSize(flags, "max-body-size", "dapr-http-max-request-size", 1024 * 1024, warnings);
  if (bytes === 0) return Number.POSITIVE_INFINITY;
  return bytes === -1 ? DEFAULT_BODY_BYTES : bytes;
}

function resolveReadBuffer(flags: Flags, warnings: string[]): number {
  const bytes = readSize(flags, "read-buffer-size", "dapr-http-read-buffer-size", 1024, warnings);
  return bytes > 0 ? bytes : DEFAULT_READ_BUFFER_BYTES;
}

function resolveGrace(seconds: number): number {
  if (seconds === 0) return Number.POSITIVE_INFINITY;
  return (seconds < 0 ? 5 : seconds) * 1000;
}

function resolveLevel(text: string): LogLevel {
  const level = LEVELS.find((name) => name === text.toLowerCase());
  if (level !== undefined) return level;
  throw new SettingError(`undefined Log Output Level: ${text} (one of: ${LEVELS.join(", ")})`);
}

function tooSmall(name: FlagName): SettingError {
  return new SettingError(`invalid value for '${name}': it must be greater than zero`);
}
