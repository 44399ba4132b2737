// The command line as a user meets it: what is printed and how the process ends.
import { expect, test } from "vitest";
import { freePort, sidecarCommand, startNats, startProcess, startSidecar } from "../../kit/index.ts";

type Outcome = { readonly code: number; readonly text: string };

async function run(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  const [command, ...first] = sidecarCommand();
  await using running = await startProcess({ name: "weftd", command, args: [...first, ...args], env });
  return { code: await running.exited, text: running.logs() };
}

test.each([
  ["--version"],
  ["-version"],
  ["--version=true"],
  ["words before --version", "--version", "and after"],
])("%s prints the version", async (...args) => {
  expect(await run(args)).toEqual({ code: 0, text: expect.stringMatching(/^\d+\.\d+\.\d+\S*\n$/) });
});

test("--build-info prints three lines", async () => {
  const { code, text } = await run(["--build-info"]);
  expect(code).toBe(0);
  expect(text).toMatch(/^Version: .*\nGit Commit: .*\nGit Version: .*\n$/);
});

test.each(["-h", "--help"])("%s lists all flags with their defaults", async (flag) => {
  const { code, text } = await run([flag]);
  expect(code).toBe(0);
  expect(text).toMatch(/--dapr-http-port \S+ .*3500/);
  expect(text).toMatch(/--app-protocol \S+ .*http/);
});

test("--wait ends when the sidecar of that port is ready", async () => {
  await using nats = await startNats();
  const port = await freePort();
  const waiting = run(["--wait", `--dapr-http-port=${port}`]);
  let over = false;
  void waiting.then(() => (over = true));
  const flags = [`--dapr-http-port=${port}`, "--dapr-listen-addresses="];
  await using sidecar = await startSidecar({ appId: "awaited", nats, flags, wait: "none" });
  expect(over).toBe(false);
  await sidecar.logged(/dapr initialized/, 30_000);
  expect((await waiting).code).toBe(0);
});

test("an unknown flag: usage, then the flag, then code 2", async () => {
  const { code, text } = await run(["--app-id=x", "--no-such-flag=1"]);
  expect(code).toBe(2);
  expect(text).toMatch(/--app-id string[^]*\nunknown flag: --no-such-flag/);
});

test.each([
  [["--app-id=x", "--app-port=3500"], /conflicts with 'app-port'/],
  [["--app-id=x", "--app-port=50001"], /conflicts with 'app-port'/],
  [["--app-id=a.b"], /parameter app-id cannot contain dots/],
  [["--app-id=x", "--mode=other"], /invalid value for 'mode': other/],
  [["--app-id=x", "--log-level=loud"], /undefined Log Output Level: loud/],
  [
    [
      "--app-id=x",
      "--app-port=1",
      "--enable-app-health-check",
      "--app-health-probe-interval=1",
      "--app-health-probe-timeout=1500",
    ],
    /must be smaller than 'health-probe-interval'/,
  ],
])("%j is fatal", async (args, message) => {
  const { code, text } = await run(args);
  expect(code).toBe(1);
  expect(text).toContain("Fatal error from runtime: ");
  expect(text).toMatch(message);
});

test("old flags still count, with a warning each", async () => {
  await using nats = await startNats();
  const flags = [
    "--app-ssl",
    "--dapr-http-read-buffer-size=8",
    "--components-path=.",
    "--enable-metrics=false",
  ];
  await using sidecar = await startSidecar({ appId: "old", nats, appPort: 1, flags, wait: "outbound" });
  for (const name of ["app-ssl", "dapr-http-read-buffer-size", "components-path"]) {
    expect(sidecar.logs()).toMatch(new RegExp(`level=warning msg=.*${name}.*deprecated`, "i"));
  }
  const { appConnectionProperties } = (await sidecar.get("/v1.0/metadata")).json<{
    appConnectionProperties: { protocol: string };
  }>();
  expect(appConnectionProperties.protocol).toBe("https");
  const wide = { "x-wide": "w".repeat(7_000) };
  expect((await sidecar.get("/v1.0/healthz/outbound", wide)).status).toBe(204);
  expect((await sidecar.get("/v1.0/healthz/outbound", { "x-wide": "w".repeat(14_000) })).status).toBe(431);
});
