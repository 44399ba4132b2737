/**
 * Every command line flag: daprd's, under the same names, types and defaults, and our own. Parser, usage text and
 * types are all made from this table.
 */

/**
 * How a flag's text is read: `int` and `bool` as Go reads them, `duration` as a Go duration into milliseconds,
 * `list` as comma separated values, repeatable.
 */
export type FlagKind = "string" | "int" | "bool" | "duration" | "list";

export interface FlagRow {
  readonly name: string;
  readonly kind: FlagKind;
  /** Milliseconds for a duration. */
  readonly fallback: string | number | boolean | readonly string[];
  readonly about: string;
  /** Environment variable that stands in for a flag that is not given. */
  readonly env?: string;
}

/** The groups in the order in which the usage text shows them. */
export const FLAG_GROUPS = [
  {
    title: "The application",
    flags: [
      {
        name: "app-id",
        kind: "string",
        fallback: "",
        about: "Name of the application; others call it by this name (required)",
      },
      {
        name: "app-port",
        kind: "string",
        fallback: "",
        about: "Port the application listens on; leave out when it only calls",
      },
      {
        name: "app-protocol",
        kind: "string",
        fallback: "http",
        about: "How to talk to the application: http, https, h2c, grpc or grpcs",
      },
      {
        name: "app-channel-address",
        kind: "string",
        fallback: "127.0.0.1",
        about: "Address the application listens on",
      },
      {
        name: "app-max-concurrency",
        kind: "int",
        fallback: -1,
        about: "Most calls to the application at one time; -1 for no limit",
      },
      {
        name: "enable-app-health-check",
        kind: "bool",
        fallback: false,
        about: "Probe the application and stop sending it work while it is unhealthy",
      },
      {
        name: "app-health-check-path",
        kind: "string",
        fallback: "/healthz",
        about: "HTTP path of the probe",
      },
      { name: "app-health-probe-interval", kind: "int", fallback: 5, about: "Seconds between two probes" },
      {
        name: "app-health-probe-timeout",
        kind: "int",
        fallback: 500,
        about: "Milliseconds a probe may take",
      },
      {
        name: "app-health-threshold",
        kind: "int",
        fallback: 3,
        about: "Failed probes after which the application counts as unhealthy",
      },
      {
        name: "disable-init-endpoints",
        kind: "list",
        fallback: [],
        about: "Do not ask the application for these at its start: config, subscribe",
      },
      {
        name: "app-binding-options-timeout",
        kind: "duration",
        fallback: 3_000,
        about: "How long the application may take to say whether it wants an input binding",
      },
    ],
  },
  {
    title: "The sidecar's API",
    flags: [
      { name: "dapr-http-port", kind: "string", fallback: "3500", about: "Port of the HTTP API" },
      { name: "dapr-grpc-port", kind: "string", fallback: "50001", about: "Port of the gRPC API" },
      {
        name: "dapr-listen-addresses",
        kind: "string",
        fallback: "",
        about: "Addresses the API listens on, comma separated; empty for all",
      },
      {
        name: "dapr-public-port",
        kind: "string",
        fallback: "",
        about: "Extra port that serves only health and metadata",
      },
      {
        name: "dapr-public-listen-address",
        kind: "string",
        fallback: "",
        about: "Address of the extra port; empty for all",
      },
      {
        name: "unix-domain-socket",
        kind: "string",
        fallback: "",
        about: "Directory for socket files that take the place of both API ports",
      },
      {
        name: "max-body-size",
        kind: "string",
        fallback: "4Mi",
        about: "Largest request body, such as 512Ki or 16Mi; 0 for no HTTP limit, -1 for the default",
      },
      {
        name: "read-buffer-size",
        kind: "string",
        fallback: "4Ki",
        about: "Room for the headers of a request, such as 16Ki; -1 for the default",
      },
      {
        name: "allowed-origins",
        kind: "string",
        fallback: "",
        about: "Origins that browsers may call from, comma separated, or *; empty turns CORS off",
      },
      {
        name: "enable-api-logging",
        kind: "bool",
        fallback: false,
        about: "Log every API call; without the flag the Configuration decides",
      },
      {
        name: "dapr-graceful-shutdown-seconds",
        kind: "int",
        fallback: 5,
        about: "Seconds to finish work in flight when stopping; 0 waits for ever",
      },
      {
        name: "dapr-block-shutdown-duration",
        kind: "duration",
        fallback: 0,
        about: "Keep serving this long after a stop signal, or until the application is unhealthy",
      },
    ],
  },
  {
    title: "Resources",
    flags: [
      {
        name: "resources-path",
        kind: "list",
        fallback: [],
        about: "Directory with components, subscriptions and other resources; may be repeated",
      },
      {
        name: "config",
        kind: "list",
        fallback: [],
        about: "File with a Configuration; when repeated, later files win",
      },
      {
        name: "hot-reload-reconcile-interval",
        kind: "duration",
        fallback: 0,
        about: "How often the resources are read again even when no change was seen; 0 means 60s",
      },
    ],
  },
  {
    title: "The mesh",
    flags: [
      {
        name: "nats-url",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_URL",
        about: "NATS servers, comma separated; empty uses the one on this machine or starts one",
      },
      {
        name: "nats-creds",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_CREDS",
        about: "File with NATS credentials (JWT and seed)",
      },
      {
        name: "nats-nkey",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_NKEY",
        about: "File with an NKey seed",
      },
      { name: "nats-user", kind: "string", fallback: "", env: "WEFT_NATS_USER", about: "NATS user" },
      {
        name: "nats-password",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_PASSWORD",
        about: "Password of the NATS user; safer in the environment",
      },
      {
        name: "nats-tls-ca",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_TLS_CA",
        about: "File with the certificate authority of the NATS servers",
      },
      {
        name: "nats-tls-cert",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_TLS_CERT",
        about: "File with the client certificate for NATS",
      },
      {
        name: "nats-tls-key",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_TLS_KEY",
        about: "File with the key of the client certificate",
      },
      {
        name: "nats-server",
        kind: "string",
        fallback: "",
        env: "WEFT_NATS_SERVER",
        about: "Program to start when no NATS server is found",
      },
      {
        name: "nats-port",
        kind: "string",
        fallback: "4222",
        env: "WEFT_NATS_PORT",
        about: "Local port where NATS is looked for, and started when it is not there",
      },
      {
        name: "weft-home",
        kind: "string",
        fallback: "",
        env: "WEFT_HOME",
        about: "Directory for the data of a server that is started here; empty for ~/.weft",
      },
      {
        name: "mesh-root",
        kind: "string",
        fallback: "weft",
        env: "WEFT_MESH_ROOT",
        about: "First token of all NATS subjects; keeps meshes on one server apart",
      },
    ],
  },
  {
    title: "Logs, metrics, profiling",
    flags: [
      { name: "log-level", kind: "string", fallback: "info", about: "debug, info, warn, error or fatal" },
      { name: "log-as-json", kind: "bool", fallback: false, about: "One JSON object per log line" },
      {
        name: "log-file",
        kind: "string",
        fallback: "",
        about: "File to append the log to, in place of standard output",
      },
      { name: "enable-metrics", kind: "bool", fallback: true, about: "Serve Prometheus metrics" },
      { name: "metrics-port", kind: "string", fallback: "9090", about: "Port of the metrics" },
      {
        name: "metrics-listen-address",
        kind: "string",
        fallback: "0.0.0.0",
        about: "Address of the metrics",
      },
      { name: "enable-profiling", kind: "bool", fallback: false, about: "Serve profiling data" },
      { name: "profile-port", kind: "string", fallback: "7777", about: "Port of the profiling data" },
    ],
  },
  {
    title: "Commands in place of running",
    flags: [
      { name: "version", kind: "bool", fallback: false, about: "Print the version and exit" },
      { name: "build-info", kind: "bool", fallback: false, about: "Print version and commit and exit" },
      {
        name: "wait",
        kind: "bool",
        fallback: false,
        about: "Wait up to 60s until the sidecar on this machine is ready, and exit",
      },
    ],
  },
  {
    title: "Taken for compatibility; most change nothing because there is no control plane",
    flags: [
      { name: "mode", kind: "string", fallback: "standalone", about: "standalone or kubernetes" },
      {
        name: "dapr-internal-grpc-port",
        kind: "string",
        fallback: "",
        about: "Port between sidecars (unused: they talk over NATS)",
      },
      {
        name: "dapr-internal-grpc-listen-address",
        kind: "string",
        fallback: "",
        about: "Address between sidecars (unused)",
      },
      { name: "placement-host-address", kind: "string", fallback: "", about: "Placement service (unused)" },
      { name: "scheduler-host-address", kind: "list", fallback: [], about: "Scheduler service (unused)" },
      { name: "scheduler-job-streams", kind: "int", fallback: 3, about: "Streams to the scheduler (unused)" },
      {
        name: "actors-disseminate-timeout",
        kind: "duration",
        fallback: 30_000,
        about: "Longest pause of actors while placement changes",
      },
      {
        name: "enable-mtls",
        kind: "bool",
        fallback: false,
        about: "TLS between sidecars (unused: set it on NATS)",
      },
      { name: "sentry-address", kind: "string", fallback: "", about: "Certificate service (unused)" },
      {
        name: "sentry-request-jwt-audiences",
        kind: "list",
        fallback: [],
        about: "Audiences of its tokens (unused)",
      },
      { name: "control-plane-address", kind: "string", fallback: "", about: "Control plane (unused)" },
      {
        name: "control-plane-trust-domain",
        kind: "string",
        fallback: "localhost",
        env: "DAPR_CONTROLPLANE_TRUST_DOMAIN",
        about: "Its trust domain (unused)",
      },
      {
        name: "control-plane-namespace",
        kind: "string",
        fallback: "default",
        env: "DAPR_CONTROLPLANE_NAMESPACE",
        about: "Its namespace (unused)",
      },
      {
        name: "disable-builtin-k8s-secret-store",
        kind: "bool",
        fallback: false,
        about: "No built-in secret store in Kubernetes mode",
      },
      { name: "components-path", kind: "string", fallback: "", about: "Deprecated, use --resources-path" },
      {
        name: "app-ssl",
        kind: "bool",
        fallback: false,
        about: "Deprecated, use --app-protocol=https or grpcs",
      },
      {
        name: "dapr-http-max-request-size",
        kind: "int",
        fallback: -1,
        about: "Deprecated, use --max-body-size (this one is in MB)",
      },
      {
        name: "dapr-http-read-buffer-size",
        kind: "int",
        fallback: -1,
        about: "Deprecated, use --read-buffer-size (this one is in KB)",
      },
      { name: "actors-service", kind: "string", fallback: "", about: "Deprecated (unused)" },
      { name: "reminders-service", kind: "string", fallback: "", about: "Deprecated (unused)" },
    ],
  },
] as const satisfies readonly { readonly title: string; readonly flags: readonly FlagRow[] }[];

type Row = (typeof FLAG_GROUPS)[number]["flags"][number];
type ValueOf<Kind extends FlagKind> = Kind extends "bool"
  ? boolean
  : Kind extends "int" | "duration"
    ? number
    : Kind extends "list"
      ? readonly string[]
      : string;

export type FlagName = Row["name"];

/** One value for every flag; durations in milliseconds. */
export type FlagValues = { readonly [R in Row as R["name"]]: ValueOf<R["kind"]> };
