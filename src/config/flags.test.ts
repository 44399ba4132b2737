import { describe, expect, it } from "vitest";
import { FLAG_GROUPS, type FlagRow } from "./flag-table.ts";
import { type Environment, type FlagOutcome, type Flags, parseFlags, usage } from "./flags.ts";

const build = { version: "1.2.3", commit: "abc" };

function parse(argv: readonly string[], env: Environment = {}): FlagOutcome {
  return parseFlags(argv, env, build);
}

function run(argv: readonly string[], env: Environment = {}): Flags {
  const outcome = parse(argv, env);
  if (outcome.kind !== "run") throw new Error(JSON.stringify(outcome));
  return outcome.flags;
}

/** Everything that is printed after the usage text. */
function fault(argv: readonly string[]): string {
  const outcome = parse(argv);
  if (outcome.kind !== "print") throw new Error(`ran: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ exitCode: 2, stream: "stderr" });
  expect(outcome.text.startsWith(`${usage()}\n`)).toBe(true);
  return outcome.text.slice(usage().length + 1).trimEnd();
}

describe("parseFlags", () => {
  it.each<[readonly string[], string, unknown]>([
    [["--app-id", "a"], "app-id", "a"],
    [["--app-id=a"], "app-id", "a"],
    [["-app-id=a"], "app-id", "a"],
    [["-app-id", "a"], "app-id", "a"],
    [["--app-id="], "app-id", ""],
    [["--app-id=a=b"], "app-id", "a=b"],
    [["--app-id=a", "--app-id=b"], "app-id", "b"],
    [["--app-id", "--x"], "app-id", "--x"],
    [["run", "--app-id=a", "other", "-"], "app-id", "a"],
    [["--app-id=a", "--", "--app-id=b", "--nope"], "app-id", "a"],
    [["--app-max-concurrency", "-1"], "app-max-concurrency", -1],
    [["--app-max-concurrency=0x10"], "app-max-concurrency", 16],
    [["--app-max-concurrency=010"], "app-max-concurrency", 8],
    [["--app-max-concurrency=1_000"], "app-max-concurrency", 1000],
    [["--app-max-concurrency=+7"], "app-max-concurrency", 7],
    [["--enable-metrics=false"], "enable-metrics", false],
    [["--enable-metrics"], "enable-metrics", true],
    [["--enable-metrics", "false"], "enable-metrics", true],
    [["--enable-metrics=F"], "enable-metrics", false],
    [["--log-as-json"], "log-as-json", true],
    [["--dapr-block-shutdown-duration=1m30s"], "dapr-block-shutdown-duration", 90_000],
    [["--app-binding-options-timeout", "1.5s"], "app-binding-options-timeout", 1_500],
    [["--resources-path=a,b", "--resources-path", "c"], "resources-path", ["a", "b", "c"]],
    [['--resources-path="a,b",c d'], "resources-path", ["a,b", "c d"]],
    [['--resources-path="say ""hi"""'], "resources-path", ['say "hi"']],
    [["--resources-path="], "resources-path", []],
    [[], "resources-path", []],
    [[], "dapr-http-port", "3500"],
    [[], "enable-metrics", true],
  ])("reads %j as --%s %j", (argv, name, value) => {
    expect(run(argv).values).toMatchObject({ [name]: value });
  });

  it.each([
    [["--app-prot=3000"], "unknown flag: --app-prot\ndid you mean --app-port?"],
    [["-resource-path", "x"], "unknown flag: --resource-path\ndid you mean --resources-path?"],
    [["--zzzzzz"], "unknown flag: --zzzzzz"],
    [["-x"], "unknown flag: --x"],
    [["--=3"], "bad flag syntax: --=3"],
    [["---app-id"], "bad flag syntax: ---app-id"],
    [["--app-id"], "flag needs an argument: --app-id"],
    [
      ["--app-max-concurrency=many"],
      'invalid argument "many" for "--app-max-concurrency" flag: strconv.ParseInt: parsing "many": invalid syntax',
    ],
    [
      ["--app-health-threshold", ""],
      'invalid argument "" for "--app-health-threshold" flag: strconv.ParseInt: parsing "": invalid syntax',
    ],
    [
      ["--app-health-threshold=99999999999999999999"],
      'invalid argument "99999999999999999999" for "--app-health-threshold" flag: ' +
        'strconv.ParseInt: parsing "99999999999999999999": value out of range',
    ],
    [
      ["--enable-metrics=yes"],
      'invalid argument "yes" for "--enable-metrics" flag: strconv.ParseBool: parsing "yes": invalid syntax',
    ],
    [
      ["--dapr-block-shutdown-duration=5"],
      'invalid argument "5" for "--dapr-block-shutdown-duration" flag: time: missing unit in duration "5"',
    ],
    [
      ['--config="a'],
      'invalid argument "\\"a" for "--config" flag: close the quotes, or write "" for a quote inside them',
    ],
  ])("refuses %j", (argv, message) => {
    expect(fault(argv)).toBe(message);
  });

  it("knows which flags were given", () => {
    const { given } = run(["--app-id=a", "--enable-api-logging=false"]);
    expect([...given]).toEqual(["app-id", "enable-api-logging"]);
  });

  it("takes our own flags from the environment unless they are given", () => {
    const env = { WEFT_NATS_URL: "nats://env:4222", WEFT_MESH_ROOT: "blue" };
    expect(run(["--app-id=a"], env).values).toMatchObject({
      "nats-url": "nats://env:4222",
      "mesh-root": "blue",
    });
    expect(run(["--nats-url=nats://flag:1"], env).values["nats-url"]).toBe("nats://flag:1");
    expect(run([], { WEFT_MESH_ROOT: "" }).values["mesh-root"]).toBe("weft");
  });

  it("prints version, build and help on standard output", () => {
    const printed = { kind: "print", exitCode: 0, stream: "stdout" };
    expect(parse(["--version"])).toEqual({ ...printed, text: "1.2.3\n" });
    expect(parse(["-version"])).toEqual({ ...printed, text: "1.2.3\n" });
    expect(parse(["--build-info"])).toEqual({
      ...printed,
      text: "Version: 1.2.3\nGit Commit: abc\nGit Version: 1.2.3\n",
    });
    for (const help of ["-h", "--help", "-help"]) {
      expect(parse([help])).toEqual({ ...printed, text: usage() });
    }
    expect(parse(["--wait", "--dapr-http-port=3601"])).toEqual({ kind: "wait", httpPort: "3601" });
  });

  it("has every flag of the contract with its default", () => {
    const rows = FLAG_GROUPS.flatMap((group): readonly FlagRow[] => group.flags);
    expect(new Set(rows.map((row) => row.name)).size).toBe(rows.length);
    const texts = Object.fromEntries(
      rows.map((row) => [row.name, `${row.kind} ${String(row.fallback)}`.trim()]),
    );
    expect(texts).toMatchObject({
      "app-id": "string",
      "app-port": "string",
      "app-protocol": "string http",
      "app-channel-address": "string 127.0.0.1",
      "app-max-concurrency": "int -1",
      "dapr-http-port": "string 3500",
      "dapr-grpc-port": "string 50001",
      "dapr-listen-addresses": "string",
      "dapr-internal-grpc-port": "string",
      "dapr-internal-grpc-listen-address": "string",
      "dapr-public-port": "string",
      "dapr-public-listen-address": "string",
      "unix-domain-socket": "string",
      "max-body-size": "string 4Mi",
      "read-buffer-size": "string 4Ki",
      "dapr-http-max-request-size": "int -1",
      "dapr-http-read-buffer-size": "int -1",
      "resources-path": "list",
      config: "list",
      "components-path": "string",
      mode: "string standalone",
      "allowed-origins": "string",
      "enable-app-health-check": "bool false",
      "app-health-check-path": "string /healthz",
      "app-health-probe-interval": "int 5",
      "app-health-probe-timeout": "int 500",
      "app-health-threshold": "int 3",
      "disable-init-endpoints": "list",
      "app-binding-options-timeout": "duration 3000",
      "dapr-graceful-shutdown-seconds": "int 5",
      "dapr-block-shutdown-duration": "duration 0",
      "enable-api-logging": "bool false",
      "log-level": "string info",
      "log-as-json": "bool false",
      "log-file": "string",
      "enable-metrics": "bool true",
      "metrics-port": "string 9090",
      "metrics-listen-address": "string 0.0.0.0",
      "enable-profiling": "bool false",
      "profile-port": "string 7777",
      "placement-host-address": "string",
      "scheduler-host-address": "list",
      "scheduler-job-streams": "int 3",
      "actors-disseminate-timeout": "duration 30000",
      "hot-reload-reconcile-interval": "duration 0",
      "enable-mtls": "bool false",
      "sentry-address": "string",
      "control-plane-address": "string",
      "sentry-request-jwt-audiences": "list",
      "control-plane-trust-domain": "string localhost",
      "control-plane-namespace": "string default",
      "disable-builtin-k8s-secret-store": "bool false",
      "app-ssl": "bool false",
      "actors-service": "string",
      "reminders-service": "string",
      version: "bool false",
      "build-info": "bool false",
      wait: "bool false",
    });
  });

  it("shows every flag in the usage text, in lines that fit a terminal", () => {
    const text = usage();
    for (const group of FLAG_GROUPS) for (const row of group.flags) expect(text).toContain(`  --${row.name}`);
    expect(text).toMatch(/--actors-disseminate-timeout duration +\S.* \(default 30s\)/);
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(150);
  });
});
