import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { failure, openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { GrpcCode, errorInfo, resourceInfo } from "../../api/errors.ts";

const { method } = Dapr;
const storeName = "store";
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("state over gRPC", () => {
  it("mounts every state call of the Dapr service, and ours", async () => {
    const { block } = await testStateBlock();
    const ours = ["ListKeys", "Watch"].map((name) => `/weft.runtime.v1.StateExtensions/${name}`);
    expect((await block.grpc()).map(({ path }) => path)).toEqual([
      ...ours,
      ...[
        "GetState",
        "GetBulkState",
        "SaveState",
        "DeleteState",
        "DeleteBulkState",
        "ExecuteStateTransaction",
        "QueryStateAlpha1",
      ].map((name) => `/dapr.proto.runtime.v1.Dapr/${name}`),
    ]);
  });

  it("stores bytes untouched", async () => {
    const tested = await testStateBlock();
    const value = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    await tested.grpc(method.saveState, { storeName, states: [{ key: "k", value }] });
    const found = await tested.grpc(method.getState, { storeName, key: "k" });
    expect(found.data).toEqual(value);
    expect(found.etag).not.toBe("");
    expect(found.metadata).toEqual({});
  });

  it("answers an absent key with empty fields", async () => {
    const tested = await testStateBlock();
    expect(await tested.grpc(method.getState, { storeName, key: "k" })).toEqual({});
  });

  it("rewrites a value that is declared as JSON, in a save only", async () => {
    const tested = await testStateBlock();
    const item = {
      key: "k",
      value: bytes(` { "b": 1, "a": "<" } `),
      metadata: { contentType: "application/json" },
    };
    await tested.grpc(method.saveState, { storeName, states: [item] });
    const rewritten = await tested.grpc(method.getState, { storeName, key: "k" });
    expect(Buffer.from(rewritten.data!).toString()).toBe(`{"a":"\\u003c","b":1}`);
    const operations = [{ operationType: "upsert", request: item }];
    await tested.grpc(method.executeStateTransaction, { storeName, operations });
    expect((await tested.grpc(method.getState, { storeName, key: "k" })).data).toEqual(item.value);
    const broken = { ...item, value: bytes("{") };
    const error = await failure(tested.grpc(method.saveState, { storeName, states: [broken] }));
    // An error of its own, not one that the server has to log as unexpected.
    expect(error).toMatchObject({
      code: "ERR_MALFORMED_REQUEST",
      grpcCode: GrpcCode.Unknown,
      grpcDetails: [],
    });
    expect(error.message).toBe("unexpected end of JSON input");
  });

  it("tells the expiry", async () => {
    const tested = await testStateBlock();
    const states = [{ key: "k", value: bytes("1"), metadata: { ttlInSeconds: "60" } }];
    await tested.grpc(method.saveState, { storeName, states });
    const found = await tested.grpc(method.getState, { storeName, key: "k" });
    expect(found.metadata).toEqual({ ttlExpireTime: "2025-01-01T00:01:00Z" });
  });

  it("compares and sets, creates and deletes by ETag", async () => {
    const tested = await testStateBlock();
    const save = (value: string, more: object): Promise<unknown> =>
      tested.grpc(method.saveState, { storeName, states: [{ key: "k", value: bytes(value), ...more }] });
    const firstWrite = { options: { concurrency: 1 } };
    await save("1", firstWrite);
    const again = await failure(save("2", firstWrite));
    expect(again.grpcCode).toBe(GrpcCode.Aborted);
    expect(again.grpcDetails).toEqual([errorInfo("ERR_STATE_SAVE")]);
    const etag = { value: (await tested.grpc(method.getState, { storeName, key: "k" })).etag! };
    await save("3", { etag });
    expect((await failure(save("4", { etag }))).grpcCode).toBe(GrpcCode.Aborted);
    const stale = await failure(tested.grpc(method.deleteState, { storeName, key: "k", etag }));
    expect(stale).toMatchObject({ grpcCode: GrpcCode.Aborted, grpcDetails: [errorInfo("ERR_STATE_DELETE")] });
    await tested.grpc(method.deleteState, { storeName, key: "k" });
    expect(await tested.grpc(method.getState, { storeName, key: "k" })).toEqual({});
    await save("5", { etag: { value: "" }, options: { concurrency: 99, consistency: 99 } });
  });

  it("reads many", async () => {
    const tested = await testStateBlock();
    await tested.grpc(method.saveState, { storeName, states: [{ key: "a", value: bytes("1") }] });
    const { items } = await tested.grpc(method.getBulkState, { storeName, keys: ["x", "a"] });
    expect(items).toEqual([
      { key: "x" },
      { key: "a", data: bytes("1"), etag: expect.any(String), metadata: {} },
    ]);
    expect(await tested.grpc(method.getBulkState, { storeName, keys: [] })).toEqual({ items: [] });
  });

  it("deletes many and joins the failures", async () => {
    const tested = await testStateBlock();
    const states = ["a", "b"].map((key) => ({ key, value: bytes(key) }));
    await tested.grpc(method.saveState, { storeName, states });
    const wrong = [{ key: "a" }, { key: "b", etag: { value: "x" } }];
    const error = await failure(tested.grpc(method.deleteBulkState, { storeName, states: wrong }));
    const mismatch = "possible etag mismatch. error from state store";
    expect(error.message).toBe(`failed deleting state in state store store: ${mismatch}: ${mismatch}`);
    expect(error.grpcCode).toBe(GrpcCode.Aborted);
    expect(error.grpcDetails).toEqual([errorInfo("ERR_STATE_BULK_DELETE")]);
    const { items } = await tested.grpc(method.getBulkState, { storeName, keys: ["a", "b"] });
    expect(items!.map(({ etag }) => etag === undefined)).toEqual([true, false]);
    await tested.grpc(method.deleteBulkState, { storeName, states: [] });
  });

  it("does a transaction or nothing", async () => {
    const tested = await testStateBlock();
    const upsert = { operationType: "upsert", request: { key: "a", value: bytes("1") } };
    const failing = { operationType: "delete", request: { key: "b", etag: { value: "x" } } };
    const transact = (...operations: object[]): Promise<unknown> =>
      tested.grpc(method.executeStateTransaction, { storeName, operations });
    const error = await failure(transact(upsert, failing));
    expect(error.grpcCode).toBe(GrpcCode.Internal);
    expect(error.grpcDetails).toEqual([errorInfo("ERR_STATE_TRANSACTION", { key: "b" })]);
    expect(await tested.grpc(method.getState, { storeName, key: "a" })).toEqual({});
    await transact();
    await transact(upsert);
    expect((await tested.grpc(method.getState, { storeName, key: "a" })).data).toHaveLength(1);
    const unknown = await failure(transact({ operationType: "x", request: { key: "a" } }));
    expect(unknown).toMatchObject({
      grpcCode: GrpcCode.Unimplemented,
      message: "operation type x not supported",
    });
    expect((await failure(transact({ operationType: "x" }))).grpcCode).toBe(GrpcCode.Unimplemented);
    await transact({ operationType: "upsert" });
    expect((await tested.grpc(method.getState, { storeName, key: "" })).etag).not.toBe("");
  });

  it("answers the errors of stores and keys", async () => {
    const tested = await testStateBlock();
    const unknown = await failure(tested.grpc(method.getState, { storeName: "nope", key: "k" }));
    expect(unknown).toMatchObject({
      grpcCode: GrpcCode.InvalidArgument,
      message: "state store nope is not found",
      grpcDetails: [errorInfo("DAPR_STATE_NOT_FOUND")],
    });
    const none = await testStateBlock({ stores: {} });
    const unconfigured = await failure(none.grpc(method.saveState, { storeName, states: [] }));
    expect(unconfigured.grpcCode).toBe(GrpcCode.FailedPrecondition);
    const illegal = await failure(tested.grpc(method.deleteState, { storeName, key: "a||b" }));
    expect(illegal.message).toBe("input key/keyPrefix 'a||b' can't contain '||'");
    expect(illegal.grpcDetails.map(({ type }) => type)).toEqual(["BadRequest", "ResourceInfo", "ErrorInfo"]);
    const empty = await failure(tested.grpc(method.saveState, { storeName, states: [{ key: "" }] }));
    expect(empty).toMatchObject({
      grpcCode: GrpcCode.InvalidArgument,
      message: "state key cannot be empty",
      grpcDetails: [errorInfo("ERR_STATE_SAVE")],
    });
    const query = await failure(tested.grpc(method.queryStateAlpha1, { storeName }));
    expect(query).toMatchObject({
      grpcCode: GrpcCode.Internal,
      grpcDetails: [resourceInfo("state", "store"), errorInfo("DAPR_STATE_QUERYING_NOT_SUPPORTED")],
    });
  });

  it("answers a failed bulk get without details", async () => {
    const store = await openInMemory(manualClock());
    const failing = { ...store, getMany: () => Promise.reject(new Error("boom")) } as unknown as typeof store;
    const tested = await testStateBlock({ stores: { store: failing } });
    const error = await failure(tested.grpc(method.getBulkState, { storeName, keys: ["a"] }));
    expect(error).toMatchObject({ grpcCode: GrpcCode.Unknown, message: "boom", grpcDetails: [] });
  });
});
