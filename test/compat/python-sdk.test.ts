// The unmodified Python SDK: one app on dapr.ext.grpc, one plain HTTP app that uses the SDK as a client, and a caller,
// each a process beside its own sidecar. The scenarios, with their assertions, are in python/caller.py.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { python, runPython, startNats, startSidecar } from "../kit/index.ts";
import type { Nats, Sidecar } from "../kit/index.ts";
import { startBlocks } from "./blocks.ts";
import { sdkEnv, startSdkApp } from "./sdk-app.ts";
import type { SdkApp } from "./sdk-app.ts";

describe("the Python SDK", () => {
  const stack = new AsyncDisposableStack();
  let caller: Sidecar;

  beforeAll(async () => {
    // Made here when a developer runs this file alone.
    await python();
    const nats = stack.use(await startNats());
    const { resources } = stack.use(await startBlocks(nats));
    caller = stack.use(await startSidecar({ appId: "caller", nats, resources }));
    const apps = await Promise.all([
      start(nats, { appId: "http-app", program: "test/compat/python/http_app.py", protocol: "http" }),
      start(nats, { appId: "grpc-app", program: "test/compat/python/grpc_app.py", protocol: "grpc" }),
    ]);
    await Promise.all(apps.map((app) => app.sidecar.subscribed("flaky")));
  }, 240_000);
  afterAll(() => stack.disposeAsync());

  async function start(
    nats: Nats,
    app: Pick<Parameters<typeof startSdkApp>[0], "appId" | "program" | "protocol">,
  ): Promise<SdkApp> {
    return stack.use(await startSdkApp({ nats, ...app }));
  }

  async function run(scenario: string, invocation: "http" | "grpc" = "http"): Promise<void> {
    const env = { ...sdkEnv(caller), DAPR_API_METHOD_INVOCATION_PROTOCOL: invocation };
    expect(await runPython("test/compat/python/caller.py", [scenario], env)).toContain(
      `${scenario}: as expected`,
    );
  }

  test("wait, metadata", () => run("wait_and_metadata"));

  describe.each(["http", "grpc"] as const)("invocation over %s", (protocol) => {
    test("an HTTP app and a gRPC app answer", () => run("invoke", protocol));
    test("the two apps ask each other", () => run("invoke_between_apps", protocol));
    test("verbs, query, headers and bodies", () => run("invoke_http_details", protocol));
    test("failures keep their status", () => run(`invoke_failures_${protocol}`, protocol));
  });

  describe("pub/sub", () => {
    test("events reach the HTTP app and the gRPC app", async () => {
      await run("publish");
      await run("publish_to_grpc");
    });
    test("retry, drop, unknown component", () => run("publish_answers"));
    test("many at once", () => run("publish_bulk"));
    test("a subscription of a resource file", () => run("declared"));
    test("a subscription to many at once", () => run("bulk_subscribe"));
    test("streams, read in a loop and by a handler", async () => {
      await run("stream");
      await run("stream_handler");
    });
  });

  describe("state", () => {
    test("save, get, delete", () => run("state"));
    test("many at once", () => run("state_bulk"));
    test("ETags and first-write", () => run("state_etag"));
    test("a time to live", () => run("state_ttl"));
    test("transactions", () => run("state_transaction"));
  });

  test("locks", () => run("lock"));
  test("configuration: get, and changes", () => run("configuration"));
  test("documents", () => run("crypto"));
});
