// Keys by prefix and watches through real sidecars, over HTTP and gRPC.
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StateExtensions, WatchEvent_Kind } from "../../../proto/gen/weft/runtime/v1/state_pb.ts";
import {
  type GrpcClient,
  type Nats,
  type Sidecar,
  grpcClient,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { openEvents } from "./event-source.ts";
import { stateComponent } from "./resources.ts";

const { method } = StateExtensions;
const api = "/v1.0-weft1/state";
const resources = {
  "a.yaml": stateComponent("durable", "state.nats"),
  "b.yaml": stateComponent("fleeting", "state.in-memory"),
  "c.yaml": stateComponent("open", "state.nats", { keyPrefix: "none" }),
  "d.yaml": stateComponent("file", "state.sqlite", { connectionString: ":memory:" }),
};
let nats: Nats;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  nats = await startNats();
  sidecar = await startSidecar({ appId: "shop", nats, resources });
  grpc = grpcClient(sidecar.grpcPort);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

const save = async (store: string, key: string, value: unknown, metadata = {}): Promise<void> => {
  const saved = await sidecar.post(`/v1.0/state/${store}`, [{ key, value, metadata }]);
  expect([saved.status, saved.text]).toEqual([204, ""]);
};
const remove = async (store: string, key: string): Promise<void> => {
  const removed = await sidecar.http(`/v1.0/state/${store}/${key}`, { method: "DELETE" });
  expect(removed.status).toBe(204);
};
const watch = (path: string, headers: Record<string, string> = {}) =>
  openEvents(`${sidecar.httpUrl}${api}/${path}`, headers);
type Page = { keys: string[]; token?: string };

describe.each(["durable", "fleeting"])("store %s", (store) => {
  test("lists the app's keys by prefix, page by page, the same over both protocols", async () => {
    for (let i = 0; i < 25; i++) await save(store, `list-${i}`, i);
    await save(store, "other", 1);
    const keys: string[] = [];
    let token = "";
    do {
      const answer = await sidecar.get(`${api}/${store}/keys?prefix=list-&limit=10&token=${token}`);
      expect(answer.status).toBe(200);
      const page = answer.json<Page>();
      expect(page.keys.length).toBeLessThanOrEqual(10);
      keys.push(...page.keys);
      token = page.token ?? "";
    } while (token !== "");
    const wanted = Array.from({ length: 25 }, (_, i) => `list-${i}`).toSorted();
    expect(keys.toSorted()).toEqual(wanted);
    const listed = await grpc.unary(method.listKeys, { storeName: store, prefix: "list-" });
    expect(listed.keys.toSorted()).toEqual(wanted);
    expect((await sidecar.get(`${api}/${store}/keys?prefix=none`)).json()).toEqual({ keys: [] });
  });

  test("watches a prefix as server-sent events, and goes on behind the last event", async () => {
    await using first = await watch(`${store}/watch?prefix=w-`);
    expect(first.status).toBe(200);
    expect(await first.next()).toMatchObject({ event: "ready", data: {} });
    await save(store, "w-1", { n: 1 });
    const put = await first.next();
    const { etag } = (await sidecar.get(`/v1.0/state/${store}/w-1`)).headers;
    expect(put).toMatchObject({ event: "put", data: { key: "w-1", data: { n: 1 }, etag } });
    await save(store, "elsewhere", 1);
    await save(store, "w-2", "two", { ttlInSeconds: "1" });
    const short = await first.next();
    expect(short).toMatchObject({ event: "put", data: { key: "w-2", data: "two" } });
    expect(short!.data).toHaveProperty("metadata.ttlExpireTime");
    expect(await first.next()).toMatchObject({ event: "expired", data: { key: "w-2" } });
    await first[Symbol.asyncDispose]();
    await remove(store, "w-1");
    await save(store, "w-3", 3);
    await using second = await watch(`${store}/watch?prefix=w-`, { "Last-Event-ID": put!.id });
    expect(await second.next()).toMatchObject({ event: "ready" });
    const seen = [await second.next()];
    while (seen.at(-1)?.event !== "put" || (seen.at(-1)!.data as { key: string }).key !== "w-3")
      seen.push(await second.next());
    expect(seen.map((event) => `${event!.event} ${(event!.data as { key: string }).key}`)).toContain(
      "delete w-1",
    );
  });

  test("watches one key over gRPC", async () => {
    const stream = grpc.stream(method.watch);
    stream.send({ storeName: store, target: { case: "key", value: "g" } });
    stream.end();
    expect(await stream.next()).toMatchObject({ kind: WatchEvent_Kind.READY });
    await save(store, "g2", 1);
    await save(store, "g", { a: 1 });
    let event = await stream.next();
    while (event?.kind === WatchEvent_Kind.IDLE) event = await stream.next();
    expect(event).toMatchObject({ kind: WatchEvent_Kind.PUT, key: "g" });
    expect(Buffer.from(event!.data).toString()).toBe('{"a":1}');
    expect(event!.etag).toBe((await sidecar.get(`/v1.0/state/${store}/g`)).headers["etag"]);
    await remove(store, "g");
    event = await stream.next();
    while (event?.kind === WatchEvent_Kind.IDLE) event = await stream.next();
    expect(event).toMatchObject({ kind: WatchEvent_Kind.DELETED, key: "g" });
    stream.cancel();
  });

  test("refuses what it cannot take, and says so", async () => {
    const first = (await sidecar.get(`${api}/${store}/keys?prefix=list-&limit=1`)).json<Page>();
    const other = store === "durable" ? "fleeting" : "durable";
    for (const query of [
      "token=nonsense",
      `token=${"A".repeat(2_000)}`,
      `prefix=other&token=${first.token}`,
      "limit=0",
      "limit=10001",
      "limit=-1",
      "limit=1e3",
      `prefix=${"x".repeat(5_000)}`,
      "prefix=a%7C%7Cb",
      `token=${Buffer.from(JSON.stringify([store, "shop||", "\u0000"])).toString("base64url")}`,
    ]) {
      const answer = await sidecar.get(`${api}/${store}/keys?${query}`);
      expect([query.slice(0, 50), answer.status]).toEqual([query.slice(0, 50), 400]);
      expect(answer.json()).toMatchObject({ errorCode: "ERR_MALFORMED_REQUEST" });
    }
    const stolen = await sidecar.get(`${api}/${other}/keys?prefix=list-&limit=1&token=${first.token}`);
    expect(stolen.status).toBe(400);
    for (const [query, id] of [
      ["key=a&prefix=b", ""],
      ["key=a%7C%7Cb", ""],
      ["prefix=a", "nonsense"],
      ["prefix=a", `${store}:x`],
      ["prefix=a", `${other}:1-1`],
    ] as const) {
      await using refused = await watch(`${store}/watch?${query}`, id === "" ? {} : { "Last-Event-ID": id });
      expect([query, id, refused.status]).toEqual([query, id, 400]);
      expect(refused.text).toContain("ERR_MALFORMED_REQUEST");
    }
    expect((await sidecar.get(`${api}/nowhere/keys`)).status).toBe(400);
  });
});

test("an app sees nothing of other apps, whatever it asks for", async () => {
  await using other = await startSidecar({ appId: "shop2", nats, resources });
  await other.post("/v1.0/state/durable", [{ key: "secret", value: 1 }]);
  await save("durable", "mine", 1);
  await save("open", "shared", 1);
  await other.post("/v1.0/state/open", [{ key: "shared2", value: 1 }]);
  const keys = async (from: Sidecar, path: string) => (await from.get(`${api}/${path}`)).json<Page>().keys;
  expect(await keys(other, "durable/keys")).toEqual(["secret"]);
  expect(await keys(sidecar, "durable/keys?prefix=")).not.toContain("secret");
  expect(await keys(sidecar, "durable/keys?prefix=2")).toEqual([]);
  expect((await keys(sidecar, "open/keys")).toSorted()).toEqual(["shared", "shared2"]);
  await using events = await watch("durable/watch");
  expect(await events.next()).toMatchObject({ event: "ready" });
  await other.post("/v1.0/state/durable", [{ key: "secret", value: 2 }]);
  await save("durable", "mine", 2);
  expect(await events.next()).toMatchObject({ event: "put", data: { key: "mine" } });
});

test("a store that cannot watch says so over both protocols", async () => {
  await using refused = await watch("file/watch?prefix=a");
  expect(refused.status).toBe(501);
  expect(refused.text).toContain("state store file does not support watching keys");
  const stream = grpc.stream(method.watch);
  stream.send({ storeName: "file", target: { case: "prefix", value: "a" } });
  await expect(stream.next()).rejects.toMatchObject({ code: 12 });
});

test("the metadata API lists abilities that Dapr knows, and no others", async () => {
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{
    components: { name: string; capabilities: string[] }[];
  }>();
  const of = (name: string) => components.find((component) => component.name === name)!.capabilities;
  const common = ["ETAG", "TRANSACTIONAL", "TTL"];
  expect(of("durable")).toEqual([...common, "ACTOR"]);
  expect(of("fleeting")).toEqual([...common, "DELETE_WITH_PREFIX", "KEYS_LIKE", "ACTOR"]);
  expect(of("file")).toEqual([...common, "KEYS_LIKE", "ACTOR"]);
});

test("watches go on when nats-server is killed, and end whole when the sidecar stops", async () => {
  await using server = await startNats();
  const flags = ["--dapr-graceful-shutdown-seconds=60"];
  await using own = await startSidecar({ appId: "shop", nats: server, resources, flags });
  await using events = await openEvents(`${own.httpUrl}${api}/durable/watch`);
  expect(await events.next()).toMatchObject({ event: "ready" });
  await own.post("/v1.0/state/durable", [{ key: "k", value: 1 }]);
  expect(await events.next()).toMatchObject({ event: "put", data: { data: 1 } });
  await server.kill();
  await server.restart();
  await expect
    .poll(async () => (await own.post("/v1.0/state/durable", [{ key: "k", value: 2 }])).status, {
      timeout: 30_000,
    })
    .toBe(204);
  expect(await events.next()).toMatchObject({ event: "put", data: { data: 2 } });
  const ownGrpc = grpcClient(own.grpcPort);
  const stream = ownGrpc.stream(method.watch);
  stream.send({ storeName: "durable" });
  expect(await stream.next()).toMatchObject({ kind: WatchEvent_Kind.READY });
  const last = (async () => {
    for (;;) if ((await stream.next()) === undefined) return;
  })();
  const refused = last.catch((error: unknown) => error);
  const ended = own.stop();
  // A save that failed in the outage may have been made all the same.
  let event = await events.next();
  while (event?.event === "put") event = await events.next();
  expect(event).toBeUndefined();
  expect(await refused).toMatchObject({ code: 14 });
  // In far less time than the grace period.
  await ended;
  ownGrpc[Symbol.dispose]();
});

const rules = (list: string): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: c\nspec:\n  api:\n${list}`;

test.each([
  ["denied by name", "    denied:\n    - {name: state, version: v1.0-weft1, protocol: http}\n", 204, 404],
  [
    "denied with Dapr's state API",
    "    denied:\n    - {name: state, version: v1, protocol: http}\n",
    404,
    404,
  ],
  [
    "not among what is allowed",
    "    allowed:\n    - {name: state, version: v1.0, protocol: http}\n",
    204,
    404,
  ],
  ["allowed", "    allowed:\n    - {name: state, version: v1.0-weft1, protocol: http}\n", 404, 200],
])("API lists: %s", async (_, list, saves, lists) => {
  await using own = await startSidecar({ appId: "shop", nats, resources, config: rules(list) });
  expect((await own.post("/v1.0/state/fleeting", [{ key: "k", value: 1 }])).status).toBe(saves);
  expect((await own.get(`${api}/fleeting/keys`)).status).toBe(lists);
});

test("API lists hold over gRPC, and the API token for both", async () => {
  const config = rules("    denied:\n    - {name: state, version: v1, protocol: grpc}\n");
  const env = { DAPR_API_TOKEN: "secret" };
  await using own = await startSidecar({ appId: "shop", nats, resources, config, env });
  using client = grpcClient(own.grpcPort);
  const metadata = { "dapr-api-token": "secret" };
  await expect(client.unary(method.listKeys, { storeName: "fleeting" }, { metadata })).rejects.toMatchObject({
    code: 12,
  });
  expect((await own.get(`${api}/fleeting/keys`)).status).toBe(401);
  expect((await own.get(`${api}/fleeting/keys`, metadata)).status).toBe(200);
  await using open = await startSidecar({ appId: "shop", nats, resources, env });
  using openClient = grpcClient(open.grpcPort);
  await expect(openClient.unary(method.listKeys, { storeName: "fleeting" })).rejects.toMatchObject({
    code: 16,
  });
  const listed = await openClient.unary(method.listKeys, { storeName: "fleeting" }, { metadata });
  expect(listed.keys).toEqual([]);
});

test(
  "a client that does not read holds back its own watch, not the sidecar's memory",
  { timeout: 120_000 },
  async () => {
    await using server = await startNats();
    await using own = await startSidecar({ appId: "shop", nats: server, resources });
    const socket = connect(own.httpPort, "127.0.0.1");
    socket.pause();
    socket.write(`GET ${api}/durable/watch HTTP/1.1\r\nHost: x\r\n\r\n`);
    await using reader = await openEvents(`${own.httpUrl}${api}/durable/watch`);
    expect(await reader.next()).toMatchObject({ event: "ready" });
    const value = "v".repeat(900_000);
    const before = await residentMb(own.pid);
    for (let i = 0; i < 150; i++) {
      const saved = await own.post("/v1.0/state/durable", [{ key: `k${i}`, value }]);
      expect(saved.status).toBe(204);
      expect(await reader.next()).toMatchObject({ event: "put" });
    }
    expect((await residentMb(own.pid)) - before).toBeLessThan(250);
    let received = 0;
    let tail = "";
    let sawLast = false;
    socket.on("data", (piece: Buffer) => {
      received += piece.length;
      tail = tail.slice(-20) + piece.toString("latin1");
      sawLast ||= tail.includes('"key":"k149"');
    });
    socket.resume();
    await expect.poll(() => sawLast, { timeout: 60_000 }).toBe(true);
    expect(received).toBeGreaterThan(149 * value.length);
    socket.destroy();
  },
);

async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) / 1024;
}

test("watches and large values of an encrypted store", async () => {
  await using folder = tempDir("watch-encrypted");
  const file = folder.join("secrets.json");
  await writeFile(file, JSON.stringify({ key: "0f".repeat(32) }));
  const component = (name: string, rest: string): string =>
    `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: ${name} }\n${rest}`;
  const encrypted = {
    "a.yaml": component(
      "secrets",
      `spec:\n  type: secretstores.local.file\n  version: v1\n  metadata:\n` +
        `  - { name: secretsFile, value: ${JSON.stringify(file)} }\n`,
    ),
    "b.yaml": component(
      "vault",
      `auth: { secretStore: secrets }\nspec:\n  type: state.nats\n  version: v1\n  metadata:\n` +
        `  - { name: primaryEncryptionKey, secretKeyRef: { name: key } }\n`,
    ),
  };
  await using own = await startSidecar({ appId: "shop", nats, resources: encrypted });
  await using events = await openEvents(`${own.httpUrl}${api}/vault/watch`);
  expect(await events.next()).toMatchObject({ event: "ready" });
  const value = "x".repeat(2_000_000);
  for (const text of ["secret", value]) {
    expect((await own.post("/v1.0/state/vault", [{ key: "k", value: text }])).status).toBe(204);
    const put = await events.next();
    expect((put!.data as { data: string }).data === text).toBe(true);
    expect((await own.get("/v1.0/state/vault/k")).text === text).toBe(true);
  }
  const client = await nats.connect();
  await client.request("$KV.weft__state__default__vault.shop.odd", "not encrypted", { timeout: 10_000 });
  const odd = await events.next();
  expect(odd).toMatchObject({ event: "put", data: { key: "odd" } });
  expect((odd!.data as { error: string }).error).toContain("could not decrypt data");
  expect((await own.get(`${api}/vault/keys`)).json<Page>().keys.toSorted()).toEqual(["k", "odd"]);
});
