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
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
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

test("gives secrets, with the component's metadata and the request's", async () => {
  const read = await sidecar.get("/v1.0/secrets/vault/db?metadata.as=me");
  expect(read.json()).toEqual({ user: "ann", asked: "me" });
  expect((await sidecar.get("/v1.0/secrets/vault/bulk")).json()).toEqual({ db: { user: "u" } });
  expect((await sidecar.get("/v1.0/secrets/vault/nope")).status).toBe(500);
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
}, 60_000);
