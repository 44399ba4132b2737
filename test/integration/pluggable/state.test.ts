// State and secrets of a real plug-in (grpc-go on a unix socket) through a real sidecar: values, ETags, transactions,
// errors of its own, and the plug-in's restart.
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type RunningProcess,
  type Sidecar,
  type TempDir,
  eventually,
  grpcClient,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import {
  StateOptions_StateConcurrency as Concurrency,
  StateOptions_StateConsistency as Consistency,
} from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { component } from "../secrets/resources.ts";
import { startPlugin } from "./plugin.ts";

const stack = new AsyncDisposableStack();
let folder: TempDir;
let plugin: RunningProcess;
let sidecar: Sidecar;

beforeAll(async () => {
  folder = stack.use(tempDir("plugins"));
  // Neither stops the others: a file that is no socket, and what nobody serves.
  writeFileSync(folder.join("note.txt"), "no socket");
  const mute = createServer((socket) => void socket.destroy()).listen(folder.join("mute.sock"));
  stack.defer(() => void mute.close());
  plugin = await startPlugin(folder.join("Gadget.sock"));
  stack.defer(() => plugin[Symbol.asyncDispose]());
  sidecar = stack.use(
    await startSidecar({
      appId: "shop",
      nats: stack.use(await startNats()),
      env: { DAPR_COMPONENTS_SOCKETS_FOLDER: folder.path },
      resources: {
        "store.yaml": component("store", "state.gadget", { keyPrefix: "none" }),
        "plain.yaml": component("plain", "state.gadget", { keyPrefix: "none", single: "yes" }),
        "vault.yaml": component("vault", "secretstores.gadget", { user: "ann" }),
      },
    }),
  );
}, 400_000);
afterAll(() => stack.disposeAsync());

const path = "/v1.0/state/store";
const save = (items: unknown) => sidecar.post(path, items);

test("a socket that does not answer is told and left out", () => {
  expect(sidecar.logs()).toMatch(/plug-in \S+mute\.sock is left out: it cannot be asked for its services: /);
});

test("keeps JSON and gives it back with its ETag", async () => {
  expect((await save([{ key: "a", value: { b: 1 } }])).status).toBe(204);
  const read = await sidecar.get(`${path}/a`);
  expect(read.text).toBe(`{"b":1}`);
  expect(read.headers["etag"]).toBe("1");
  expect((await sidecar.get(`${path}/none`)).status).toBe(204);
  const bulk = await sidecar.post(`${path}/bulk`, { keys: ["a", "none"] });
  expect(bulk.json()).toEqual([{ key: "a", data: { b: 1 }, etag: "1" }, { key: "none" }]);
  expect((await sidecar.http(`${path}/a`, { method: "DELETE" })).status).toBe(204);
  expect((await sidecar.get(`${path}/a`)).status).toBe(204);
});

test("tells a stale ETag from one that cannot be, and minds first-write", async () => {
  await save([{ key: "e", value: 1 }]);
  expect((await save([{ key: "e", value: 2, etag: "7" }])).status).toBe(409);
  expect((await save([{ key: "e", value: 2, etag: "x" }])).status).toBe(400);
  const firstWrite = { options: { concurrency: "first-write" } };
  expect((await save([{ key: "e", value: 2, ...firstWrite }])).status).toBe(409);
  expect((await save([{ key: "e", value: 2, etag: "1" }])).status).toBe(204);
  expect((await sidecar.get(`${path}/e`)).text).toBe("2");
});

test("refuses null, and passes an error of the plug-in's own on", async () => {
  const nil = await save([{ key: "n" }]);
  expect(nil.status).toBe(500);
  expect(nil.text).toContain("nil value");
  const quota = await save([{ key: "q", value: "quota" }]);
  expect(quota.status).toBe(507);
  expect(quota.json()).toEqual({
    errorCode: "ERR_STATE_SAVE",
    message: "failed saving state in state store store: api error: code = ResourceExhausted desc = no room",
  });
});

test("an own error sets the status of reads, not of transactions, and is whole over gRPC", async () => {
  const told = "api error: code = DataLoss desc = broken";
  const answers = [
    await sidecar.get(`${path}/boom`),
    await sidecar.post(`${path}/bulk`, { keys: ["boom"] }),
    await sidecar.post(`${path}/transaction`, {
      operations: [{ operation: "upsert", request: { key: "q", value: "quota" } }],
    }),
  ];
  expect(answers.map((answer) => [answer.status, answer.json()])).toEqual([
    [410, { errorCode: "ERR_STATE_GET", message: `fail to get boom from state store store: ${told}` }],
    [410, { errorCode: "ERR_STATE_BULK_GET", message: told }],
    [
      500,
      {
        errorCode: "ERR_STATE_TRANSACTION",
        message:
          "error while executing state transaction: api error: code = ResourceExhausted desc = no room",
      },
    ],
  ]);
  using grpc = grpcClient(sidecar.grpcPort);
  const read = grpc.unary(Dapr.method.getState, { storeName: "store", key: "boom" });
  await expect(read).rejects.toMatchObject({ code: 15, details: "broken" });
});

test("writes transactions whole or not at all, up to the plug-in's size", async () => {
  const upsert = (key: string, etag?: string) => ({
    operation: "upsert",
    request: { key, value: key, ...(etag !== undefined && { etag }) },
  });
  const transact = (operations: unknown[]) => sidecar.post(`${path}/transaction`, { operations });
  expect((await transact([upsert("t1"), upsert("t2", "9")])).status).toBe(500);
  expect((await sidecar.get(`${path}/t1`)).status).toBe(204);
  const both = [upsert("t1"), { operation: "delete", request: { key: "e" } }];
  expect((await transact(both)).status).toBe(204);
  expect((await sidecar.get(`${path}/t1`)).text).toBe(`"t1"`);
  expect((await sidecar.get(`${path}/e`)).status).toBe(204);
  const four = await transact(["1", "2", "3", "4"].map((key) => upsert(key)));
  expect(four.status).toBe(400);
  expect(four.text).toContain("more than what the state store supports: 3");
});

test("passes on what a write asks for, and gives back what the plug-in tells of a record", async () => {
  const asked = { concurrency: "last-write", consistency: "eventual" };
  const metadata = { ttlInSeconds: "as the plug-in reads it" };
  await save([{ key: "o", value: 1, contentType: "text/x", options: asked, metadata }]);
  const { headers } = await sidecar.get(`${path}/o`);
  expect(headers).toMatchObject({
    "metadata.contenttype": "text/x",
    "metadata.concurrency": "CONCURRENCY_LAST_WRITE",
    "metadata.consistency": "CONSISTENCY_EVENTUAL",
  });
  using grpc = grpcClient(sidecar.grpcPort);
  const { method } = Dapr;
  const options = {
    concurrency: Concurrency.CONCURRENCY_FIRST_WRITE,
    consistency: Consistency.CONSISTENCY_STRONG,
  };
  const state = { key: "o", value: Buffer.from("2"), etag: { value: "1" }, options };
  await grpc.unary(method.saveState, { storeName: "store", states: [state] });
  const read = await grpc.unary(method.getState, { storeName: "store", key: "o" });
  expect({ ...read.metadata }).toEqual({
    contentType: "",
    concurrency: "CONCURRENCY_FIRST_WRITE",
    consistency: "CONSISTENCY_STRONG",
  });
});

test("reads, writes and deletes many keys in one call, all or nothing as the plug-in does it", async () => {
  const items = (values: Record<string, unknown>) =>
    Object.entries(values).map(([key, value]) => ({ key, value }));
  expect((await save(items({ m1: 1, m2: 2, m3: 3 }))).status).toBe(204);
  await eventually(() => expect(plugin.logs()).toContain("set together: 3"));
  const stale = await save([...items({ m1: 9 }), { key: "m2", value: 9, etag: "7" }]);
  expect([stale.status, stale.json()]).toEqual([
    409,
    {
      errorCode: "ERR_STATE_SAVE",
      message:
        "failed saving state in state store store: possible etag mismatch. error from state store: another etag",
    },
  ]);
  expect((await save(items({ m1: 9, m2: "quota" }))).status).toBe(507);
  const bulk = await sidecar.post(`${path}/bulk`, { keys: ["m1", "m2"], parallelism: 5 });
  expect(bulk.json()).toEqual([
    { key: "m1", data: 1, etag: "1" },
    { key: "m2", data: 2, etag: "1" },
  ]);
  await eventually(() => expect(plugin.logs()).toContain("get together, at once: 5"));
  using grpc = grpcClient(sidecar.grpcPort);
  const states = ["m1", "m2", "m3"].map((key) => ({ key }));
  await grpc.unary(Dapr.method.deleteBulkState, { storeName: "store", states });
  await eventually(() => expect(plugin.logs()).toContain("deleted together: 3"));
  expect((await sidecar.get(`${path}/m2`)).status).toBe(204);
});

test("a plug-in without calls for many keys gets them one by one", async () => {
  const plain = "/v1.0/state/plain";
  const together = plugin.logs().split("together").length;
  for (const value of [1, 2]) {
    const body = ["p1", "p2"].map((key) => ({ key, value }));
    expect((await sidecar.post(plain, body)).status).toBe(204);
    const bulk = await sidecar.post(`${plain}/bulk`, { keys: ["p1", "p2", "p3"], parallelism: 1 });
    expect(bulk.json()).toMatchObject([{ data: value }, { data: value }, { key: "p3" }]);
  }
  using grpc = grpcClient(sidecar.grpcPort);
  const states = ["p1", "p2"].map((key) => ({ key }));
  await grpc.unary(Dapr.method.deleteBulkState, { storeName: "plain", states });
  expect((await sidecar.get(`${plain}/p1`)).status).toBe(204);
  expect(plugin.logs().split("together").length).toBe(together);
});

test("queries are the plug-in's: its rows, tokens, metadata and errors", async () => {
  const documents = ["q1", "q2", "q3"].map((key) => ({ key, value: { city: "Bern" } }));
  await save([...documents, { key: "q4", value: { city: "Rom" } }]);
  const ask = (query: unknown, parameters = "") =>
    sidecar.post(`/v1.0-alpha1/state/store/query${parameters}`, query);
  const filter = { EQ: { city: "Bern" } };
  const row = (key: string) => ({ key, data: { city: "Bern" }, etag: "1" });
  const first = await ask({ filter, page: { limit: 2 } }, "?metadata.as=me");
  expect(first.json()).toEqual({
    results: [row("q1"), row("q2")],
    token: "q2",
    metadata: { asked: "me" },
  });
  const second = await ask({ filter, page: { limit: 2, token: "q2" } });
  expect(second.json()).toMatchObject({ results: [row("q3")] });
  const reversed = await ask({ filter, sort: [{ key: "city", order: "DESC" }] });
  expect(reversed.json<{ results: { key: string }[] }>().results.map(({ key }) => key)).toEqual([
    "q3",
    "q2",
    "q1",
  ]);
  using grpc = grpcClient(sidecar.grpcPort);
  await grpc.unary(Dapr.method.saveState, {
    storeName: "store",
    states: [{ key: "zz", value: Buffer.from("{no") }],
  });
  const all = await ask({ sort: [{ key: "x", order: "DESC" }], page: { limit: 1 } });
  expect(all.json()).toMatchObject({
    results: [{ key: "zz", data: null, error: "no document" }],
    token: "zz",
  });
  const refused = await ask({ filter: { IN: { city: ["Bern"] } } });
  expect([refused.status, refused.json()]).toEqual([
    416,
    {
      errorCode: "ERR_ONLY_EQ",
      message: "IN is too much",
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          domain: "plugin",
          metadata: { http_code: "416", kit_error: "true", tag: "ERR_ONLY_EQ" },
          reason: "OWN",
        },
      ],
    },
  ]);
  const overGrpc = grpc.unary(Dapr.method.queryStateAlpha1, {
    storeName: "store",
    query: '{"filter":{"IN":{"city":["Bern"]}}}',
  });
  await expect(overGrpc).rejects.toMatchObject({ code: 11, details: "IN is too much" });
  expect((await ask({ filter: { GT: { city: "a" } } })).text).toContain("GT compares numbers only");
});

test("gives secrets, with the component's metadata and the request's", async () => {
  const read = await sidecar.get("/v1.0/secrets/vault/db?metadata.as=me");
  expect(read.json()).toEqual({ user: "ann", asked: "me" });
  expect((await sidecar.get("/v1.0/secrets/vault/bulk")).json()).toEqual({ db: { user: "u" } });
  const empty = await sidecar.get("/v1.0/secrets/vault/empty");
  expect([empty.status, empty.text]).toEqual([204, ""]);
  const refused = await sidecar.get("/v1.0/secrets/vault/nope");
  const message =
    "failed getting secret with key nope from secret store vault: rpc error: code = NotFound desc = no secret nope";
  expect([refused.status, refused.json()]).toEqual([500, { errorCode: "ERR_SECRET_GET", message }]);
});

test("the metadata API lists what the plug-in says of itself", async () => {
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: { name: string }[] }>();
  expect(components.find(({ name }) => name === "store")).toMatchObject({
    type: "state.gadget",
    capabilities: expect.arrayContaining(["ETAG", "TRANSACTIONAL"]) as unknown,
  });
});

test("a plug-in that was killed and started again is initialised again", async () => {
  await plugin.kill();
  expect((await save([{ key: "r", value: 1 }])).status).toBe(500);
  plugin = await startPlugin(folder.join("Gadget.sock"));
  await eventually(async () => expect((await save([{ key: "r", value: 2 }])).status).toBe(204));
  expect((await sidecar.get(`${path}/r`)).text).toBe("2");
  expect((await sidecar.get("/v1.0/secrets/vault/db")).json()).toMatchObject({ user: "ann" });
});
