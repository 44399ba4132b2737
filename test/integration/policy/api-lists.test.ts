// spec.api: which APIs a sidecar has at all, asked over both protocols of real sidecars.
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { freePort, grpcClient, GrpcError, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;

const resources = {
  "state.yaml": `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1}
`,
};

function configuration(api: string): string {
  return `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: lists}\nspec:\n  api:\n${api}`;
}

function rules(list: "allowed" | "denied", ...rows: string[]): string {
  const items = rows.map((row) => {
    const [name, version, protocol] = row.split(" ");
    return `      - {name: ${name}, version: ${version}, protocol: ${protocol}}\n`;
  });
  return `    ${list}:\n${items.join("")}`;
}

function sidecar(appId: string, api: string, flags: readonly string[] = []): Promise<Sidecar> {
  const config = configuration(api);
  return startSidecar({ appId, appPort: app.port, nats, resources, config, flags });
}

/** Text of the ErrorInfo of a refused gRPC call; undefined when it is not refused by the lists. */
async function shut(call: Promise<unknown>): Promise<string | undefined> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof GrpcError) || error.code !== 12) return undefined;
  expect(error.details).toBe("Not Implemented");
  return anyUnpack(error.status()!.details[0]!, ErrorInfoSchema)?.metadata["http.error_message"];
}

const unavailable = "requested endpoint is not available";
const directInvoke = "failed getting app id either from the URL path or the header dapr-app-id";

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: () => ({ body: "the app" }) }));
});

afterAll(() => stack.disposeAsync());

describe("denied over HTTP", () => {
  let some: Sidecar;

  beforeAll(async () => {
    some = stack.use(await sidecar("denies", rules("denied", "state v1.0 HTTP", "metadata v1 http")));
  });

  test("a blocked route does not exist: it falls to invocation", async () => {
    const answer = await some.post("/v1.0/state/store", [{ key: "k", value: 1 }]);
    expect(answer.status).toBe(404);
    expect(answer.json()).toEqual({ errorCode: "ERR_DIRECT_INVOKE", message: directInvoke });
    expect((await some.get("/v1.0/metadata")).status).toBe(404);
  });

  test("the rest is open, and so is gRPC", async () => {
    expect((await some.get("/v1.0/invoke/denies/method/x")).text).toBe("the app");
    expect((await some.get("/v1.0/healthz")).status).toBe(204);
    using client = grpcClient(some.grpcPort);
    await client.unary(Dapr.method.getState, { storeName: "store", key: "k" });
  });
});

describe("allowed over HTTP, without invocation", () => {
  let few: Sidecar;
  let publicPort: number;

  beforeAll(async () => {
    publicPort = await freePort();
    const flags = [`--dapr-public-port=${publicPort}`, "--dapr-public-listen-address=127.0.0.1"];
    few = stack.use(await sidecar("few", rules("allowed", "state v1 http"), flags));
  });

  test("what is not listed is a plain 404, with and without an app id", async () => {
    for (const headers of [{}, { "dapr-app-id": "few" }]) {
      const answer = await few.get("/v1.0/invoke/few/method/x", headers);
      expect(answer).toMatchObject({ status: 404, text: "404 page not found\n" });
      expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
      expect(answer.headers["x-content-type-options"]).toBe("nosniff");
    }
    expect((await few.post("/v1.0/shutdown")).status).toBe(404);
    expect(app.requestsTo("/v1.0/invoke/few/method/x")).toEqual([]);
  });

  test("what is listed works, and health always does", async () => {
    expect((await few.post("/v1.0/state/store", [{ key: "k", value: 1 }])).status).toBe(204);
    expect((await few.get("/v1.0/healthz")).status).toBe(204);
    expect((await few.get("/v1.0/healthz/outbound")).status).toBe(204);
  });

  test("the public port is bound by the list too", async () => {
    const open = await fetch(`http://127.0.0.1:${publicPort}/v1.0/healthz`);
    expect(open.status).toBe(204);
    const answer = await fetch(`http://127.0.0.1:${publicPort}/v1.0/metadata`);
    expect([answer.status, await answer.text()]).toEqual([404, "404 page not found\n"]);
  });
});

test("gRPC: an allow list shuts all other methods of the sidecar, HTTP stays open", async () => {
  await using allows = await sidecar("allows", rules("allowed", "state v1 grpc", "metadata v1 grpc"));
  using client = grpcClient(allows.grpcPort);
  await client.unary(Dapr.method.getState, { storeName: "store", key: "k" });
  await client.unary(Dapr.method.getMetadata, {});
  const event = { pubsubName: "p", topic: "t" };
  expect(await shut(client.unary(Dapr.method.publishEvent, event))).toBe(unavailable);
  const query = { storeName: "store", query: "{}" };
  expect(await shut(client.unary(Dapr.method.queryStateAlpha1, query))).toBe(unavailable);
  const invoke = { id: "allows", message: { method: "x" } };
  expect(await shut(client.unary(Dapr.method.invokeService, invoke))).toBe(unavailable);
  expect(await shut(client.raw("/dapr.proto.runtime.v1.Dapr/Nope", Buffer.alloc(0)))).toBe(unavailable);
  expect((await allows.get("/v1.0/invoke/allows/method/x")).text).toBe("the app");
});

test("gRPC: a denied group, also when it is allowed", async () => {
  const lists =
    rules("denied", "state v1alpha1 grpc", "metadata v1 grpc") +
    rules("allowed", "metadata v1 grpc", "state v1 grpc");
  await using denies = await sidecar("both", lists);
  using client = grpcClient(denies.grpcPort);
  expect(await shut(client.unary(Dapr.method.getMetadata, {}))).toBe(unavailable);
  await client.unary(Dapr.method.getState, { storeName: "store", key: "k" });
});

test("services that are not the sidecar's are not its APIs", async () => {
  await using allows = await sidecar("others", rules("allowed", "state v1 grpc"));
  using client = grpcClient(allows.grpcPort);
  const error = await client.raw("/my.Service/Call", Buffer.alloc(0)).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(GrpcError);
  expect((error as GrpcError).details).not.toBe("Not Implemented");
});
