// Bad flags and bad resource files: one clear message that names the place and the fix, and the right exit code.
import { expect, test } from "vitest";
import { startNats, startSidecar } from "../../kit/index.ts";
import { nativeComponents } from "./resources.ts";

const away = { url: "nats://127.0.0.1:1" };

test.each([
  ["unknown flag", ["--app-prot=1"], 2, /unknown flag: --app-prot[\s\S]*--app-port/],
  ["bad number", ["--app-port=abc"], 1, /app-port/],
  [
    "bad duration",
    ["--dapr-block-shutdown-duration=soon"],
    2,
    /invalid argument "soon" for "--dapr-block-shutdown-duration"/,
  ],
  [
    "missing resources folder",
    ["--resources-path=/nowhere/at/all"],
    1,
    /Fatal error from runtime: .*\/nowhere\/at\/all/,
  ],
  ["missing configuration", ["--config=/nowhere.yaml"], 1, /\/nowhere\.yaml/],
  [
    "a log file that cannot be opened",
    ["--log-file=/nowhere/x.log"],
    1,
    /Fatal error from runtime: .*\/nowhere\/x\.log/,
  ],
  [
    "a slash in the app id",
    ["--app-id=a/../b"],
    1,
    /Fatal error from runtime: parameter app-id cannot contain slashes/,
  ],
  ["unknown protocol", ["--app-protocol=smtp"], 1, /app-protocol.*smtp/],
])("%s", async (_name, flags, exitCode, message) => {
  await using sidecar = await startSidecar({ appId: "bad", nats: away, flags, wait: "none" });
  expect(await sidecar.exited).toBe(exitCode);
  expect(sidecar.logs()).toMatch(message);
});

test("no app id", async () => {
  await using sidecar = await startSidecar({ appId: "x", nats: away, flags: ["--app-id="], wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toContain("parameter app-id cannot be empty");
});

test("an unknown component type names file, line and the nearest type", async () => {
  const resources = { "store.yaml": nativeComponents.replace("state.nats", "state.natz") };
  await using sidecar = await startSidecar({ appId: "bad", nats: away, resources, wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(/store\.yaml:\d+.*did you mean state\.nats\?/);
  expect(sidecar.logs()).toContain(
    "Fatal error from runtime: process component statestore error: [INIT_COMPONENT_FAILURE]: " +
      "initialization error occurred for statestore (state.natz/v1): [CREATE_COMPONENT_FAILURE]: ",
  );
});

test("bad component metadata names the field and what it takes", async () => {
  const resources = {
    "pubsub.yaml": `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: pubsub }
spec:
  type: pubsub.nats
  version: v1
  metadata:
  - { name: ackWait, value: soon }
`,
  };
  await using sidecar = await startSidecar({ appId: "bad", nats: away, resources, wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(/ackWait.*soon.*write e\.g\. 30s/);
});

test("two components of one name end the start with both of them", async () => {
  const resources = { "a.yaml": nativeComponents, "b.yaml": nativeComponents };
  await using sidecar = await startSidecar({ appId: "bad", nats: away, resources, wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toContain("duplicate definition of Component name statestore (state.nats/v1)");
});

test("broken YAML is told with file, line and column, and everything else is loaded", async () => {
  await using nats = await startNats();
  const broken = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: [unclosed\n";
  const resources = { "a-broken.yaml": broken, "b-good.yaml": nativeComponents };
  await using sidecar = await startSidecar({ appId: "partly", nats, resources });
  expect(sidecar.logs()).toMatch(/a-broken\.yaml:\d+:\d+: /);
  expect((await sidecar.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
});

test("a component that may fail is left out, the sidecar runs", async () => {
  await using nats = await startNats();
  const ignorable = nativeComponents
    .replace("state.nats", "state.natz")
    .replace("  version: v1\n---", "  version: v1\n  ignoreErrors: true\n---");
  await using sidecar = await startSidecar({ appId: "partly", nats, resources: { "c.yaml": ignorable } });
  expect(sidecar.logs()).toContain("Ignoring error processing component");
  const answer = await sidecar.get("/v1.0/state/statestore/k");
  expect(answer.json()).toMatchObject({ errorCode: "ERR_STATE_STORE_NOT_CONFIGURED" });
});
