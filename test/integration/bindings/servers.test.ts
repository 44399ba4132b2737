// Bindings to real servers: what the app sends through the output comes back to it through the input.
import { expect, test } from "vitest";
import { type App, type Sidecar, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { startKafka } from "../../kit/servers/kafka.ts";
import { startMosquitto } from "../../kit/servers/mosquitto.ts";
import { startPostgres } from "../../kit/servers/postgres.ts";
import { startRabbit } from "../../kit/servers/rabbitmq.ts";
import { askSocket } from "../../kit/servers/server.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { binding, invoke } from "./resources.ts";

type Answer = Awaited<ReturnType<Sidecar["http"]>>;

test("bindings.redis sets, gets, counts and deletes keys", async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: { "r.yaml": binding("cache", "bindings.redis", { redisHost: redis.address }) },
  });
  expect((await invoke(sidecar, "cache", "create", "tea", { key: "k" })).status).toBe(204);
  const got = await invoke(sidecar, "cache", "get", null, { key: "k" });
  expect([got.status, got.text]).toEqual([200, '"tea"']);
  expect((await invoke(sidecar, "cache", "increment", null, { key: "n", ttlInSeconds: "60" })).status).toBe(
    204,
  );
  expect((await invoke(sidecar, "cache", "get", null, { key: "n", delete: "true" })).text).toBe("1");
  expect((await invoke(sidecar, "cache", "get", null, { key: "n" })).text).toBe("");
  expect((await invoke(sidecar, "cache", "delete", null, { key: "k" })).status).toBe(204);
  for (const metadata of [{ TTL: "90s" }, { ttlInSeconds: "90" }]) {
    const key = Object.keys(metadata)[0]!;
    for (const operation of ["create", "increment"]) {
      expect((await invoke(sidecar, "cache", operation, 1, { key, ...metadata })).status).toBe(204);
      const left = (await askSocket(redis.host, redis.port, `PTTL ${key}\r\n`)).toString();
      expect(Number(left.slice(1))).toBeGreaterThan(60_000);
    }
  }
  const refused = await invoke(sidecar, "cache", "get", null);
  expect(refused.text).toContain("redis binding: missing key in request metadata");
  expect((await invoke(sidecar, "cache", "create", 1, { key: "k", ttlInSeconds: "soon" })).text).toContain(
    "ttlInSeconds",
  );
});

test("bindings.postgresql runs statements with parameters", async () => {
  await using nats = await startNats();
  await using postgres = await startPostgres();
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "p.yaml": binding("sql", "bindings.postgresql", {
        host: postgres.host,
        port: String(postgres.port),
        user: "postgres",
        database: "postgres",
      }),
    },
  });
  const run = (operation: string, sql: string, params?: unknown): Promise<Answer> =>
    invoke(sidecar, "sql", operation, null, {
      sql,
      ...(params === undefined ? {} : { params: JSON.stringify(params) }),
    });
  expect((await run("exec", "CREATE TABLE tea (id int, name text)")).status).toBe(200);
  const inserted = await run("exec", "INSERT INTO tea VALUES ($1, $2), (2, 'b')", [1, "a"]);
  expect([inserted.status, inserted.text, inserted.headers["metadata.rows-affected"]]).toEqual([
    200,
    "",
    "2",
  ]);
  const found = await run("query", "SELECT id, name, id AS id FROM tea ORDER BY id");
  expect(found.json()).toEqual([
    [1, "a", 1],
    [2, "b", 2],
  ]);
  expect(found.headers["metadata.operation"]).toBe("query");
  expect(found.headers["metadata.duration"]).toMatch(/^\d+ms$/);
  const kinds = [
    "count(*), 9007199254740993::int8, 1.50::numeric, 'NaN'::numeric, ARRAY[[1::int8, NULL]], null, true",
    "'\\x00ff'::bytea, '2020-01-02'::date, '2020-01-02 03:04:05.123456'::timestamp, '<a>'",
    "'2020-01-02T03:04:05+01'::timestamptz AT TIME ZONE 'UTC', '{\"b\":1.0,\"a\":[]}'::jsonb",
  ];
  expect((await run("query", `SELECT ${kinds.join(", ")}\nFROM tea`)).text).toBe(
    '[[2,9007199254740993,1.50,"NaN",[[1,null]],null,true,"AP8=","2020-01-02T00:00:00Z",' +
      '"2020-01-02T03:04:05.123456Z","\\u003ca\\u003e","2020-01-02T02:04:05Z",{"a":[],"b":1}]]',
  );
  expect((await run("query", "SELECT 1 FROM tea WHERE false")).text).toBe("[]");
  expect((await run("exec", "SET bytea_output = escape")).status).toBe(200);
  expect((await run("query", "SELECT '\\x00ff41'::bytea")).text).toBe('[["AP9B"]]');
  expect((await run("query", "SELECT * FROM nothing")).text).toContain(
    'relation \\"nothing\\" does not exist',
  );
  expect((await invoke(sidecar, "sql", "exec", null)).text).toContain("required metadata not set: sql");
  expect((await invoke(sidecar, "sql", "query", null, { sql: "SELECT 1", params: "{" })).text).toContain(
    "JSON array",
  );
  expect((await invoke(sidecar, "sql", "close", null)).status).toBe(204);
  expect((await run("query", "SELECT 1")).status).toBe(500);
});

/** Sends three messages through the binding `loop`, and waits for them at the app; the second is refused once. */
async function roundTrip(
  sidecar: Sidecar,
  app: App,
  refusedAgain: boolean,
  sentMetadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  let refusals = refusedAgain ? 1 : 0;
  app.on("POST /loop", (request) => {
    if (request.body.toString() === '{"n":2}' && refusals-- > 0) return { status: 500 };
    return undefined;
  });
  await sidecar.logged(/binding loop delivers to the app/, 30_000);
  for (const n of [1, 2, 3]) {
    const sent = await invoke(sidecar, "loop", "create", { n }, sentMetadata);
    expect([sent.status, sent.text]).toEqual([204, ""]);
  }
  await app.received("/loop", refusedAgain ? 4 : 3, 30_000);
  const bodies = app.requestsTo("/loop").map(({ body }) => body.toString());
  expect(new Set(bodies)).toEqual(new Set(['{"n":1}', '{"n":2}', '{"n":3}']));
}

/** The test of one product: an app with a sidecar whose component is `loop`. */
async function loop(
  type: string,
  metadata: Readonly<Record<string, string>>,
  refusedAgain: boolean,
  sentMetadata: Readonly<Record<string, string>> = {},
): Promise<App["requests"]> {
  await using nats = await startNats();
  await using app = await startApp();
  await using sidecar = await startSidecar({
    appId: "looper",
    nats,
    appPort: app.port,
    resources: { "l.yaml": binding("loop", type, { ...metadata, direction: "input, output" }) },
  });
  await roundTrip(sidecar, app, refusedAgain, sentMetadata);
  return app.requestsTo("/loop");
}

test("bindings.rabbitmq: what the app refuses comes again", async () => {
  await using rabbit = await startRabbit();
  const host = `amqp://guest:guest@${rabbit.address}`;
  const sent = { "a b(c)": "x", priority: "3", ttlInSeconds: "1h" };
  const queue = { queueName: "tea", durable: "true", ttl: "10m" };
  const [first] = await loop("bindings.rabbitmq", { host, ...queue }, true, sent);
  expect([first!.headers["a+b%28c%29"], first!.headers["priority"]]).toEqual(["x", "3"]);
}, 180_000);

test("bindings.mqtt3", async () => {
  await using mosquitto = await startMosquitto();
  await loop(
    "bindings.mqtt3",
    { url: `mqtt://${mosquitto.address}`, topic: "tea", consumerID: "looper" },
    false,
  );
});

test("bindings.kafka", async () => {
  await using kafka = await startKafka();
  const topics = { topics: "tea", publishTopic: "tea", initialOffset: "oldest" };
  await loop("bindings.kafka", { brokers: kafka.address, authType: "none", ...topics }, false);
}, 180_000);
