// DAPR_API_TOKEN before both APIs, and whose token reaches the app.
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { grpcClient, GrpcError, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, GrpcClient, Sidecar } from "../../kit/index.ts";

let stack: AsyncDisposableStack;
let app: App;
let guarded: Sidecar;
let open: Sidecar;
let client: GrpcClient;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: () => ({ body: "the app" }) }));
  const env = { DAPR_API_TOKEN: "geheim-ä" };
  guarded = stack.use(await startSidecar({ appId: "guarded", appPort: app.port, nats, env }));
  open = stack.use(await startSidecar({ appId: "open", appPort: app.port, nats }));
  client = stack.use(grpcClient(guarded.grpcPort));
});

afterAll(() => stack.disposeAsync());

/** As the header carries it: bytes of UTF-8. */
const token = Buffer.from("geheim-ä").toString("latin1");
const invoke = "/v1.0/invoke/guarded/method/x";

test.each([
  ["GET", "/v1.0/metadata", undefined, 401],
  ["GET", "/v1.0/metadata", "", 401],
  ["GET", "/v1.0/metadata", "geheim", 401],
  ["GET", "/v1.0/metadata", token.slice(0, -1), 401],
  ["GET", "/v1.0/metadata", token, 200],
  ["GET", invoke, undefined, 401],
  ["GET", invoke, token, 200],
  ["GET", "/nothing/here", undefined, 401],
  ["OPTIONS", "/v1.0/metadata", undefined, 401],
  ["POST", "/v1.0/shutdown", "wrong", 401],
  ["GET", "/v1.0/healthz", undefined, 204],
  ["GET", "/v1.0/healthz/", undefined, 204],
  ["GET", "/v1.0/healthz?appid=guarded", undefined, 204],
  ["GET", "/v1.0/healthz/outbound", "wrong", 204],
  ["POST", "/v1.0/healthz", undefined, 401],
  ["GET", "/v1.0/healthz/other", undefined, 401],
])("%s %s with %j: %i", async (method, path, given, status) => {
  const answer = await guarded.http(path, {
    method,
    headers: given === undefined ? {} : { "dapr-api-token": given },
  });
  expect(answer.status).toBe(status);
  if (status !== 401) return;
  expect(answer.text).toBe("invalid api token\n");
  expect(answer.headers).toMatchObject({
    "content-type": "text/plain; charset=utf-8",
    "x-content-type-options": "nosniff",
  });
});

test("of several tokens the first counts", async () => {
  const status = async (...tokens: string[]): Promise<number> =>
    (await guarded.http("/v1.0/metadata", { headers: { "dapr-api-token": tokens } })).status;
  expect(await status(token, token)).toBe(200);
  expect(await status(token, "wrong")).toBe(200);
  expect(await status("wrong", token)).toBe(401);
  expect(await status(`${token}x`, token)).toBe(401);
});

test("over gRPC, the sidecar's own methods and calls that it would pass on", async () => {
  const refusal = async (call: Promise<unknown>): Promise<unknown[]> => {
    const error = await call.catch((thrown: unknown) => thrown);
    if (!(error instanceof GrpcError)) throw new Error("the call was not refused");
    const info = anyUnpack(error.status()!.details[0]!, ErrorInfoSchema);
    return [error.code, error.details, info?.metadata["http.error_message"]];
  };
  const missing = [16, "Unauthorized", "missing api token in request metadata"];
  const mismatch = [16, "Unauthorized", "authentication error: api token mismatch"];
  expect(await refusal(client.unary(Dapr.method.getMetadata, {}))).toEqual(missing);
  const wrong = { metadata: { "dapr-api-token": "wrong" } };
  expect(await refusal(client.unary(Dapr.method.getMetadata, {}, wrong))).toEqual(mismatch);
  const proxied = { metadata: { "dapr-app-id": "open" } };
  expect(await refusal(client.raw("/my.Service/Call", Buffer.alloc(0), proxied))).toEqual(missing);
});

test("a caller's token goes to the app unless it opens the caller's sidecar", async () => {
  const seen = async (from: Sidecar, to: string, given: string): Promise<unknown> => {
    await from.get(`/v1.0/invoke/${to}/method/seen`, { "dapr-api-token": given });
    return app.requestsTo("/seen").at(-1)!.headers["dapr-api-token"];
  };
  expect(await seen(open, "guarded", "mine")).toBe("mine");
  expect(await seen(open, "open", "mine")).toBe("mine");
  expect(await seen(guarded, "open", token)).toBeUndefined();
  expect(await seen(guarded, "guarded", token)).toBeUndefined();
});
