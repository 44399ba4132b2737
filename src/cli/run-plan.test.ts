import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { CliError } from "./failure.ts";
import { completeFlags, makeAppId, planRun } from "./run-plan.ts";
import type { RunPlan } from "./run-plan.ts";
import {
  addSidecarOptions,
  checkFlags,
  flagArguments,
  givenFlags,
  spellOutBooleans,
} from "./sidecar-flags.ts";

const made = {
  appId: "made-1",
  ports: { http: 7001, grpc: 7002, metrics: 7003 },
  resources: ["/home/components"],
  config: ["/home/config.yaml"],
};

/** The plan of `weft run <argv>`, without touching the machine. */
function plan(argv: readonly string[], env: Record<string, string> = {}): RunPlan {
  const command = new Command("run").argument("[command...]").passThroughOptions();
  addSidecarOptions(command);
  command.parse(spellOutBooleans(argv), { from: "user" });
  const flags = completeFlags(givenFlags(command), made);
  return planRun(flags, checkFlags(flagArguments(flags), env), command.args);
}

describe("weft run", () => {
  it("fills in what is not given", () => {
    const { sidecarArgs, command, appEnv, appPort, sidecar } = plan([
      "--",
      "node",
      "app.js",
      "--app-id",
      "theirs",
    ]);
    expect(command).toEqual(["node", "app.js", "--app-id", "theirs"]);
    expect(sidecarArgs.toSorted()).toEqual([
      "--app-id=made-1",
      "--config=/home/config.yaml",
      "--dapr-grpc-port=7002",
      "--dapr-http-port=7001",
      "--dapr-listen-addresses=127.0.0.1",
      "--metrics-listen-address=127.0.0.1",
      "--metrics-port=7003",
      "--resources-path=/home/components",
    ]);
    expect(appPort).toBe(0);
    expect(sidecar).toEqual({ host: "127.0.0.1", port: 7001 });
    expect(appEnv).toEqual({
      APP_ID: "made-1",
      APP_PROTOCOL: "http",
      APP_CHANNEL_ADDRESS: "127.0.0.1",
      DAPR_HTTP_PORT: "7001",
      DAPR_GRPC_PORT: "7002",
      DAPR_METRICS_PORT: "7003",
    });
  });

  it("takes the short forms of dapr run", () => {
    const argv = "-a shop -p 3000 -P grpc -H 4001 -G 4002 -I 4003 -M 4004 -c a.yaml -d one -d two";
    const { sidecarArgs, appEnv } = plan([...argv.split(" "), "node", "app.js"]);
    expect(sidecarArgs).toEqual(
      expect.arrayContaining([
        "--app-id=shop",
        "--app-port=3000",
        "--app-protocol=grpc",
        "--dapr-http-port=4001",
        "--dapr-grpc-port=4002",
        "--dapr-internal-grpc-port=4003",
        "--metrics-port=4004",
        "--config=a.yaml",
        "--resources-path=one",
        "--resources-path=two",
      ]),
    );
    expect(appEnv).toMatchObject({
      APP_ID: "shop",
      APP_PORT: "3000",
      APP_PROTOCOL: "grpc",
      DAPR_HTTP_PORT: "4001",
    });
  });

  it.each([
    [["--enable-api-logging", "node", "a.js"], ["--enable-api-logging=true"], ["node", "a.js"]],
    [["--enable-api-logging=false", "--", "node"], ["--enable-api-logging=false"], ["node"]],
    [
      ["--app-id", "x", "--log-as-json", "node", "--enable-profiling"],
      ["--log-as-json=true"],
      ["node", "--enable-profiling"],
    ],
    [["--", "npm", "run", "x", "--", "--y"], [], ["npm", "run", "x", "--", "--y"]],
    [["--nats-url=nats://a:1", "--weft-home", "/w"], ["--nats-url=nats://a:1", "--weft-home=/w"], []],
  ])("%j gives the sidecar %j and runs %j", (argv, flags, command) => {
    const made = plan(argv);
    expect(made.sidecarArgs).toEqual(expect.arrayContaining(flags));
    expect(made.command).toEqual(command);
  });

  it.each(["0", "-1"])("chooses a port for %s", (port) => {
    const { ports, appPort } = plan([
      `--dapr-http-port=${port}`,
      `--metrics-port=${port}`,
      `--app-port=${port}`,
    ]);
    expect({ ...ports, appPort }).toEqual({ http: 7001, grpc: 7002, metrics: 7003, appPort: 0 });
  });

  it.each([
    [["--components-path", "old"], "--components-path=old"],
    [["--resources-path", "mine"], "--resources-path=mine"],
  ])("keeps the default components out with %j", (argv, own) => {
    const { sidecarArgs } = plan(argv);
    expect(sidecarArgs).toContain(own);
    expect(sidecarArgs).not.toContain("--resources-path=/home/components");
  });

  it("finds the sidecar on another address or a socket", () => {
    expect(plan(["--dapr-listen-addresses=10.0.0.9"]).sidecar).toEqual({ host: "10.0.0.9", port: 7001 });
    expect(plan(["--dapr-listen-addresses=10.0.0.9,0.0.0.0"]).sidecar).toEqual({
      host: "127.0.0.1",
      port: 7001,
    });
    expect(plan(["-u", "/run/s"]).sidecar).toEqual({ socketPath: "/run/s/dapr-made-1-http.socket" });
  });

  it("gives the sidecar its own time to end", () => {
    expect(plan([]).sidecarGraceMs).toBe(10_000);
    expect(
      plan(["--dapr-graceful-shutdown-seconds=20", "--dapr-block-shutdown-duration=1m"]).sidecarGraceMs,
    ).toBe(85_000);
    expect(plan(["--dapr-graceful-shutdown-seconds=0"]).sidecarGraceMs).toBe(Number.POSITIVE_INFINITY);
  });

  it.each([
    [["--app-port=abc"], /parsing app-port.*"abc"/],
    [["--app-port=7001"], /7001 conflicts with 'app-port'/],
    [["--app-id=a.b"], /cannot contain dots/],
    [["--app-protocol=grcp"], /did you mean "grpc"/],
    [["--app-max-concurrency=many"], /invalid argument "many" for "--app-max-concurrency" flag/],
    [["--enable-api-logging=maybe"], /invalid argument "maybe"/],
  ])("refuses %j before anything starts", (argv, message) => {
    const attempt = (): unknown => plan(argv);
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(expect.objectContaining({ exitCode: 255 }));
    expect(attempt).toThrow(CliError);
  });
});

it.each([
  [["/usr/bin/python3.11", "a.py"], "python3-ab"],
  [["./my app.sh"], "my-app-ab"],
  [["..."], "app-ab"],
  [[], "app-ab"],
])("the id of %j is %s", (command, id) => {
  expect(makeAppId(command, "ab")).toBe(id);
});
