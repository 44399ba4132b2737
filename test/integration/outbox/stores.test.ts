// The outbox on every store that has transactions and can be had here: one sidecar commits, another one finds the
// markers and publishes.
import { writeFile } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  eventually,
  type GrpcClient,
  grpcClient,
  freePort,
  type Sidecar,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { startMariaDb } from "../../kit/servers/mariadb.ts";
import { startPostgres } from "../../kit/servers/postgres.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { startPlugin } from "../pluggable/plugin.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { component } from "../secrets/resources.ts";
import { eventsOf, outboxStore, type Published, relays, startTaker, transact } from "./events.ts";

const names = ["nats", "sqlite", "secret", "redis", "postgres-v1", "postgres-v2", "mysql", "plug-in"];
const stack = new AsyncDisposableStack();
let app: App;
/** Has no app yet, so it relays nothing. */
let writer: Sidecar;
let relay: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  const folder = stack.use(tempDir("outbox"));
  const [nats, redis, postgres, mysql] = await Promise.all([
    startNats(),
    startRedis(),
    startPostgres(),
    startMariaDb(),
  ]);
  for (const server of [nats, redis, postgres, mysql]) stack.use(server);
  const plugin = await startPlugin(folder.join("gadget.sock"));
  stack.defer(() => plugin[Symbol.asyncDispose]());
  app = stack.use(await startTaker());
  await writeFile(folder.join("secrets.json"), JSON.stringify({ key: "0f".repeat(16) }));
  const pg = { connectionString: postgres.url };
  const mysqlUrl = `root@tcp(${mysql.address})/?tls=false`;
  const resources = (more: Record<string, string>): Record<string, string> => {
    const store = (name: string, type: string, fields: Record<string, string> = {}): string =>
      outboxStore(type, { ...fields, ...more }, {}, name);
    return {
      "pubsub.yaml": pubsubComponent("pubsub.nats"),
      "secrets.yaml": component("secrets", "secretstores.local.file", {
        secretsFile: folder.join("secrets.json"),
      }),
      "nats.yaml": store("nats", "state.nats"),
      "sqlite.yaml": store("sqlite", "state.sqlite", { connectionString: folder.join("state.db") }),
      "secret.yaml":
        store("secret", "state.sqlite", { connectionString: folder.join("secret.db") }) +
        "  - { name: primaryEncryptionKey, secretKeyRef: { name: key } }\n" +
        "auth: { secretStore: secrets }\n",
      "redis.yaml": store("redis", "state.redis", { redisHost: redis.address }),
      "pg1.yaml": store("postgres-v1", "state.postgresql", { ...pg, tableName: "v1" }),
      "pg2.yaml": store("postgres-v2", "state.postgresql", { ...pg, tablePrefix: "v2_" }).replace(
        "version: v1",
        "version: v2",
      ),
      "mysql.yaml": store("mysql", "state.mysql", { connectionString: mysqlUrl }),
      "plug-in.yaml": store("plug-in", "state.gadget"),
    };
  };
  const shop = { appId: "shop", nats, env: { DAPR_COMPONENTS_SOCKETS_FOLDER: folder.path } };
  const mail = { appId: "mail", nats, resources: { "p.yaml": pubsubComponent() }, appPort: app.port };
  // Without prefix the relay can also be asked for markers.
  relay = stack.use(await startSidecar({ ...shop, resources: resources({ keyPrefix: "none" }) }));
  const appPort = await freePort();
  writer = stack.use(await startSidecar({ ...shop, resources: resources({}), appPort, wait: "outbound" }));
  await stack.use(await startSidecar(mail)).subscribed("orders");
  await relays(relay);
  grpc = stack.use(grpcClient(writer.grpcPort));
}, 400_000);
afterAll(() => stack.disposeAsync());

let seen = 0;
beforeEach(() => void (seen = eventsOf(app).length));

describe.each(names)("%s", (store) => {
  const next = (): Promise<Published> =>
    eventually(
      () => {
        const events = eventsOf(app).slice(seen);
        expect(events).toHaveLength(1);
        return events[0]!;
      },
      { timeoutMs: 20_000 },
    );

  test("publishes what was committed over HTTP, and the marker goes", async () => {
    const upsert = { key: `${store}-1`, value: { n: 1 }, contentType: "application/json" };
    const { status, text } = await transact(writer, [upsert], "", store);
    expect([status, text]).toEqual([204, ""]);
    const { id, data, source } = await next();
    expect([data, source]).toEqual([{ n: 1 }, "shop"]);
    await eventually(async () => expect((await relay.get(`/v1.0/state/${store}/${id}`)).status).toBe(204));
    expect((await writer.get(`/v1.0/state/${store}/${store}-1`)).json()).toEqual({ n: 1 });
  });

  test("publishes what was committed over gRPC", async () => {
    const request = { key: `${store}-2`, value: Buffer.from("bytes") };
    const operations = [{ operationType: "upsert", request }];
    await grpc.unary(Dapr.method.executeStateTransaction, { storeName: store, operations });
    expect(await next()).toMatchObject({ data: "bytes", datacontenttype: "text/plain" });
  });

  test("publishes nothing of a transaction that an ETag refused", async () => {
    const etag = store === "postgres-v2" ? "5c8ab7b6-1111-4222-8333-444455556666" : "999999";
    const failed = await transact(writer, [{ key: `${store}-1`, value: "lost", etag }], "", store);
    expect(failed.text).toContain("ERR_STATE_TRANSACTION");
    await transact(writer, [{ key: `${store}-3`, value: "kept" }], "", store);
    expect((await next()).data).toBe("kept");
  });
});
