import { describe, expect, it } from "vitest";
import { type Environment, parseFlags } from "./flags.ts";
import { configurationEnv, resolveOptions, type SidecarOptions } from "./options.ts";
import { SettingError } from "./setting-error.ts";

function resolve(argv: readonly string[], env: Environment = {}): SidecarOptions {
  const outcome = parseFlags(argv, env, { version: "1.2.3", commit: "abc" });
  if (outcome.kind !== "run") throw new Error(JSON.stringify(outcome));
  return resolveOptions(outcome.flags, env);
}

function withApp(argv: readonly string[], env: Environment = {}): SidecarOptions {
  return resolve(["--app-id=shop", ...argv], env);
}

describe("resolveOptions", () => {
  it("has daprd's defaults", () => {
    expect(withApp([])).toEqual({
      appId: "shop",
      namespace: "default",
      namespaceEnv: undefined,
      mode: "standalone",
      app: {
        port: 0,
        protocol: "http",
        address: "127.0.0.1",
        maxConcurrency: Number.POSITIVE_INFINITY,
        health: undefined,
        apiToken: undefined,
        skipConfig: false,
        skipSubscribe: false,
        bindingOptionsTimeoutMs: 3_000,
      },
      api: {
        httpPort: 3500,
        grpcPort: 50001,
        addresses: [""],
        socketDirectory: undefined,
        publicPort: undefined,
        publicAddress: "",
        internalGrpcPort: undefined,
        maxBodyBytes: 4_194_304,
        readBufferBytes: 4_096,
        allowedOrigins: undefined,
        h2c: true,
        apiToken: undefined,
        apiLogging: undefined,
      },
      resources: {
        directories: [],
        configFiles: [],
        reconcileIntervalMs: 60_000,
        componentSocketsDirectory: "/tmp/dapr-components-sockets",
        builtinKubernetesSecretStore: true,
      },
      mesh: {
        natsUrls: [],
        natsPort: 4222,
        credsFile: undefined,
        nkeyFile: undefined,
        user: undefined,
        password: undefined,
        tlsCaFile: undefined,
        tlsCertFile: undefined,
        tlsKeyFile: undefined,
        serverBinary: undefined,
        home: undefined,
        root: "weft",
      },
      log: { level: "info", json: false, file: undefined },
      metrics: { enabled: true, port: 9090, address: "0.0.0.0" },
      profiling: { enabled: false, port: 7777, address: "" },
      shutdown: { graceMs: 5_000, blockMs: 0 },
      actorsDisseminateTimeoutMs: 30_000,
      hostIp: undefined,
      warnings: [],
    });
  });

  it("is frozen to the bottom", () => {
    const options = withApp([]);
    expect(Object.isFrozen(options)).toBe(true);
    expect(Object.isFrozen(options.api.addresses)).toBe(true);
  });

  it("reads the environment", () => {
    const env = {
      NAMESPACE: "prod",
      DAPR_API_TOKEN: "in",
      APP_API_TOKEN: "out",
      DAPR_HOST_IP: "10.0.0.1",
      DAPR_HTTP_DISABLE_H2C: "Yes",
      DAPR_COMPONENTS_SOCKETS_FOLDER: "/run/sockets",
      WEFT_NATS_URL: "nats://a:1, nats://b:2,",
      WEFT_HOME: "/data/weft",
    };
    const options = withApp([], env);
    expect(options.namespace).toBe("prod");
    expect(options.api).toMatchObject({ apiToken: "in", h2c: false });
    expect(options.app.apiToken).toBe("out");
    expect(options.hostIp).toBe("10.0.0.1");
    expect(options.resources.componentSocketsDirectory).toBe("/run/sockets");
    expect(options.mesh).toMatchObject({ natsUrls: ["nats://a:1", "nats://b:2"], home: "/data/weft" });
  });

  it.each([
    ["--max-body-size=16Mi", 16 * 1024 * 1024],
    ["--max-body-size=1.5Ki", 1_536],
    ["--max-body-size=-1", 4 * 1024 * 1024],
    ["--max-body-size=0", Number.POSITIVE_INFINITY],
    ["--dapr-http-max-request-size=2", 2 * 1024 * 1024],
    ["--dapr-http-max-request-size=0", Number.POSITIVE_INFINITY],
    ["--dapr-http-max-request-size=-1", 4 * 1024 * 1024],
  ])("limits bodies by %s to %d bytes", (flag, bytes) => {
    expect(withApp([flag]).api.maxBodyBytes).toBe(bytes);
  });

  it.each([
    ["--read-buffer-size=64Ki", 65_536],
    ["--read-buffer-size=-1", 4_096],
    ["--dapr-http-read-buffer-size=8", 8_192],
  ])("makes room for headers by %s", (flag, bytes) => {
    expect(withApp([flag]).api.readBufferBytes).toBe(bytes);
  });

  it("lets the newer size flag win and warns of the old one", () => {
    const options = withApp(["--max-body-size=1Mi", "--dapr-http-max-request-size=9"]);
    expect(options.api.maxBodyBytes).toBe(1_048_576);
    expect(options.warnings).toEqual([
      "The 'dapr-http-max-request-size' flag is deprecated; use 'max-body-size' instead",
    ]);
  });

  it.each([
    [["--app-protocol=GRPC"], "grpc"],
    [["--app-protocol=h2c"], "h2c"],
    [["--app-protocol="], "http"],
    [["--app-ssl"], "https"],
    [["--app-ssl", "--app-protocol=gRPC"], "grpcs"],
    [["--app-ssl", "--app-protocol=h2c"], "h2c"],
  ])("%j means protocol %s", (argv, protocol) => {
    expect(withApp(argv).app.protocol).toBe(protocol);
  });

  it.each([
    ["--dapr-graceful-shutdown-seconds=0", Number.POSITIVE_INFINITY],
    ["--dapr-graceful-shutdown-seconds=-3", 5_000],
    ["--dapr-graceful-shutdown-seconds=20", 20_000],
  ])("%s gives %d ms of grace", (flag, graceMs) => {
    expect(withApp([flag]).shutdown.graceMs).toBe(graceMs);
  });

  it("reads the health probe, taking the default for what is out of range", () => {
    const flags = [
      "--app-health-probe-interval=2",
      "--app-health-probe-timeout=0",
      "--app-health-threshold=0",
    ];
    expect(withApp(flags).app.health).toBeUndefined();
    expect(withApp(["--enable-app-health-check", ...flags]).app.health).toEqual({
      path: "/healthz",
      intervalMs: 2_000,
      timeoutMs: 500,
      threshold: 3,
    });
  });

  it("tells an unset API logging flag from one that is off", () => {
    expect(withApp([]).api.apiLogging).toBeUndefined();
    expect(withApp(["--enable-api-logging=false"]).api.apiLogging).toBe(false);
    expect(withApp(["--enable-api-logging"]).api.apiLogging).toBe(true);
  });

  it("maps lists, aliases and init endpoints", () => {
    const options = withApp([
      "--components-path=old",
      "--dapr-listen-addresses=127.0.0.1, ::1",
      "--allowed-origins=https://a.example,https://b.example",
      "--disable-init-endpoints=config,subscibe",
      "--app-max-concurrency=4",
      "--log-level=WARN",
    ]);
    expect(options.resources.directories).toEqual(["old"]);
    expect(options.api.addresses).toEqual(["127.0.0.1", "::1"]);
    expect(options.api.allowedOrigins).toEqual(["https://a.example", "https://b.example"]);
    expect(options.app).toMatchObject({ skipConfig: true, skipSubscribe: false, maxConcurrency: 4 });
    expect(options.log.level).toBe("warn");
    expect(options.warnings).toEqual([
      '--disable-init-endpoints: "subscibe" is not known, did you mean "subscribe"? (known: config, subscribe)',
      "The 'components-path' flag is deprecated; use 'resources-path' instead",
    ]);
    expect(withApp(["--components-path=old", "--resources-path=new"]).resources.directories).toEqual(["new"]);
  });

  it("takes IPv6 addresses with brackets and without", () => {
    const options = withApp([
      "--dapr-listen-addresses=[::1],127.0.0.1, ::",
      "--dapr-public-listen-address=[::1]",
      "--metrics-listen-address=[::]",
      "--app-channel-address=[::1]",
    ]);
    expect(options.api).toMatchObject({ addresses: ["::1", "127.0.0.1", "::"], publicAddress: "::1" });
    expect(options.metrics.address).toBe("::");
    expect(options.app.address).toBe("::1");
    expect(withApp(["--app-channel-address="]).app.address).toBe("127.0.0.1");
  });

  it.each([
    [[], "parameter app-id cannot be empty"],
    [["--app-id=a.b"], "parameter app-id cannot contain dots"],
    [
      ["--app-id=a", "--mode=kubernets"],
      `invalid value for 'mode': kubernets, did you mean "kubernetes"? (one of: standalone, kubernetes)`,
    ],
    [["--app-id=a", "--app-port=x"], 'error parsing app-port: strconv.Atoi: parsing "x": invalid syntax'],
    [["--app-id=a", "--app-port=70000"], "error parsing app-port: 70000 is not a port, use 1 to 65535"],
    [
      ["--app-id=a", "--dapr-http-port=-1"],
      "error parsing dapr-http-port flag: -1 is not a port, use 1 to 65535",
    ],
    [
      ["--app-id=a", "--dapr-grpc-port="],
      'error parsing dapr-grpc-port flag: strconv.Atoi: parsing "": invalid syntax',
    ],
    [
      ["--app-id=a", "--profile-port=1.5"],
      'error parsing profile-port flag: strconv.Atoi: parsing "1.5": invalid syntax',
    ],
    [
      ["--app-id=a", "--dapr-public-port=p"],
      'error parsing dapr-public-port: strconv.Atoi: parsing "p": invalid syntax',
    ],
    [["--app-id=a", "--app-port=3500"], "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'"],
    [
      ["--app-id=a", "--app-port=50001"],
      "the 'dapr-grpc-port' argument value 50001 conflicts with 'app-port'",
    ],
    [
      ["--app-id=a", "--dapr-grpc-port=3500"],
      "the 'dapr-grpc-port' argument value 3500 conflicts with 'dapr-http-port'",
    ],
    [
      ["--app-id=a", "--app-protocol=htpp"],
      `invalid value for 'app-protocol': htpp, did you mean "http"? (one of: http, https, h2c, grpc, grpcs)`,
    ],
    [
      ["--app-id=a", "--app-health-probe-timeout=6000"],
      "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'",
    ],
    [
      ["--app-id=a", "--log-level=loud"],
      "undefined Log Output Level: loud (one of: debug, info, warn, error, fatal)",
    ],
    [
      ["--app-id=a", "--max-body-size=4MB"],
      "error parsing max-body-size: quantities must match the regular expression " +
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (write for example 512Ki or 16Mi)",
    ],
    [
      ["--app-id=a", "--max-body-size=4K"],
      "error parsing max-body-size: unable to parse quantity's suffix (write for example 512Ki or 16Mi)",
    ],
    [
      ["--app-id=a", "--max-body-size=-2"],
      "error parsing max-body-size: a size cannot be negative (-1 means the default)",
    ],
    [
      ["--app-id=a", "--scheduler-job-streams=0"],
      "invalid value for 'scheduler-job-streams': it must be greater than zero",
    ],
    [
      ["--app-id=a", "--actors-disseminate-timeout=0"],
      "invalid value for 'actors-disseminate-timeout': it must be greater than zero",
    ],
    [
      ["--app-id=a", "--mesh-root=a.b"],
      `invalid value for 'mesh-root': "a.b", use only letters, digits, "-" and "_"`,
    ],
    [["--app-id=a", "--nats-tls-cert=c.pem"], "'nats-tls-cert' also needs 'nats-tls-key'"],
  ])("refuses %j", (argv, message) => {
    expect(() => resolve(argv)).toThrow(new SettingError(message));
  });

  it("allows a dot in the app id in Kubernetes mode and equal ports behind sockets", () => {
    expect(resolve(["--app-id=a.b", "--mode=kubernetes"]).appId).toBe("a.b");
    expect(withApp(["--dapr-grpc-port=3500", "--unix-domain-socket=/run"]).api.socketDirectory).toBe("/run");
    expect(withApp(["--dapr-http-port=0", "--dapr-grpc-port=0"]).api.httpPort).toBe(0);
  });
});

describe("configurationEnv", () => {
  it("adds what daprd sets for itself", () => {
    const options = withApp(["--app-port=8080"]);
    expect(configurationEnv(options, { HOME: "/root", APP_ID: "x" })).toEqual({
      HOME: "/root",
      APP_ID: "shop",
      APP_PORT: "8080",
      HOST_ADDRESS: "127.0.0.1",
      DAPR_PORT: "0",
      DAPR_GRPC_PORT: "50001",
      DAPR_HTTP_PORT: "3500",
      DAPR_METRICS_PORT: "9090",
      DAPR_PROFILE_PORT: "7777",
    });
  });
});
