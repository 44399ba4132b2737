// What a sidecar answers to publishes that no well-behaved app would send, over both protocols, and what the subscriber
// sees of those that are taken. The rows are docs/hostile-events.md.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  type AppRequest,
  eventually,
  type GrpcClient,
  grpcClient,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { bulkCases } from "./bulk-cases.ts";
import { expectTable, grpcAnswer, httpAnswer, plain } from "./page.ts";
import { bodyCases, cloudEventCases, metadataCases, type PublishCase, targetCases } from "./publish-cases.ts";

const stack = new AsyncDisposableStack();
let app: App;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  const nats = stack.use(await startNats({ maxPayload: 100_000 }));
  app = stack.use(
    await startApp({
      subscriptions: [{ pubsubname: "pubsub", topic: "in.*", route: "/in" }],
      fallback: () => ({}),
    }),
  );
  sidecar = stack.use(
    await startSidecar({
      appId: "shop",
      nats,
      resources: { "p.yaml": pubsubComponent("pubsub.nats", { protectedTopics: "secret" }) },
      appPort: app.port,
      flags: ["--max-body-size=256Ki"],
    }),
  );
  await sidecar.logged(/subscribed to topic in/, 30_000);
  grpc = stack.use(grpcClient(sidecar.grpcPort));
});
afterAll(() => stack.disposeAsync());

function overHttp(of: PublishCase, topic: string): Promise<string> {
  const query = new URLSearchParams(
    Object.entries(of.metadata ?? {}).map(([name, value]): [string, string] => [`metadata.${name}`, value]),
  );
  const path = `/v1.0/publish/${encodeURIComponent(of.pubsub ?? "pubsub")}/${of.path ?? encodeURIComponent(topic)}`;
  return sidecar
    .http(query.size === 0 ? path : `${path}?${query.toString()}`, {
      method: of.verb ?? "POST",
      headers: { "content-type": of.contentType ?? "text/plain" },
      ...(of.verb === undefined && { body: of.body ?? "x" }),
    })
    .then(httpAnswer);
}

function overGrpc(of: PublishCase, topic: string): Promise<string> {
  const { pubsub: pubsubName = "pubsub", contentType: dataContentType = "text/plain", metadata = {} } = of;
  const data = Buffer.from(of.body ?? "x");
  return grpcAnswer(
    grpc.unary(Dapr.method.publishEvent, {
      pubsubName,
      topic,
      data,
      dataContentType,
      metadata: { ...metadata },
    }),
  );
}

/** Publishes all, each to a topic of its own that begins so; rows with both answers, and with what arrived. */
async function rowsOf(
  cases: readonly PublishCase[],
  name: string,
  arrival: (request: AppRequest) => string,
): Promise<string[][]> {
  const rows: string[][] = [];
  for (const [index, of] of cases.entries()) {
    const topic = of.topic ?? `in.${name}${index}`;
    const answers = [
      of.only === "grpc" ? "-" : await overHttp(of, topic),
      of.only === "http" ? "-" : await overGrpc(of, of.topic ?? `in.${name}${index}g`),
    ];
    rows.push([of.input, ...answers]);
  }
  await stillAlive();
  return Promise.all(
    cases.map(async (of, index) => {
      const row = rows[index]!;
      const own = row[1] === "204" && of.topic === undefined && of.path === undefined;
      if (!own) return row;
      if (of.gone) return [...row, "nothing: it is expired"];
      const request = await arrived(`in.${name}${index}`);
      return [...row, arrival(request)];
    }),
  );
}

async function arrived(topic: string): Promise<AppRequest> {
  return eventually(
    () => {
      const found = app.requestsTo("/in").find(({ body }) => body.includes(`"topic":"${topic}"`));
      if (found === undefined) throw new Error(`nothing came for ${topic}`);
      return found;
    },
    { timeoutMs: 30_000 },
  );
}

async function stillAlive(): Promise<void> {
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  expect(sidecar.logs()).not.toMatch(/unhandled|TypeError|RangeError|at .*\.ts:\d+/);
}

const columns = ["Input", "HTTP", "gRPC"];
const filled = (rows: string[][], count: number): string[][] =>
  rows.map((row) => [...row, ...new Array<string>(count - row.length).fill("")]);

/** Members of an envelope that say something here. */
function members(request: AppRequest, names: readonly string[]): string {
  const event = request.json<Record<string, unknown>>();
  return plain(
    names
      .filter((name) => name in event)
      .map((name) => `${name}: ${JSON.stringify(event[name])}`)
      .join(", "),
  );
}

/** The data as they stand in the envelope, and their type. */
function dataText({ body }: AppRequest): string {
  const text = body.toString();
  return text.slice(1, text.indexOf(',"id":'));
}

test("where it goes", async () => {
  const rows = await rowsOf(targetCases, "target", () => "");
  expectTable(
    "Where an event goes",
    columns,
    rows.map((row) => row.slice(0, 3)),
  );
});

test("what it is", async () => {
  const rows = await rowsOf(bodyCases, "body", (it) => plain(dataText(it)));
  expectTable("What an event is", [...columns, "The app gets"], filled(rows, 4));
});

test("CloudEvents", async () => {
  const names = [
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "data",
    "data_base64",
    "traceparent",
    "expiration",
  ];
  const rows = await rowsOf(cloudEventCases, "ce", (it) =>
    members(it, names).replace(/time: "[^"]*"/, "time: now"),
  );
  expectTable("CloudEvents of the app", [...columns, "The app gets"], filled(rows, 4));
});

test("metadata", async () => {
  const rows = await rowsOf(metadataCases, "meta", ({ rawHeaders, body }) => {
    const known = /^(host|connection|content-(type|length)|pubsubname|traceparent|user-agent)$/i;
    const own: string[] = [];
    for (let at = 0; at < rawHeaders.length; at += 2)
      if (!known.test(rawHeaders[at]!)) own.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`);
    const lengths = rawHeaders.filter((name) => /^(content-length|transfer-encoding)$/i.test(name)).length;
    expect(lengths).toBe(1);
    const expires = body.includes('"expiration":') ? ["with an expiration"] : [];
    return (
      plain([...expires, ...(own.length > 5 ? [`${own.length} headers`] : own)].join(", ")) || "as usual"
    );
  });
  expectTable("Metadata of a publish", [...columns, "The app gets"], filled(rows, 4));
});

test("bulk publish", async () => {
  const rows: string[][] = [];
  for (const { input, http, grpc: entries, query = "" } of bulkCases) {
    const post = (): Promise<string> =>
      sidecar
        .http(`/v1.0/publish/bulk/pubsub/in.bulk${query}`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: http!,
        })
        .then(httpAnswer);
    const call = (): Promise<string> =>
      grpcAnswer(
        grpc.unary(Dapr.method.bulkPublishEvent, {
          pubsubName: "pubsub",
          topic: "in.bulk",
          entries: entries!.map(({ entryId = "", event = "", contentType = "" }) => ({
            entryId,
            event: Buffer.from(event),
            contentType,
          })),
          metadata: Object.fromEntries(new URLSearchParams(query.replaceAll("metadata.", ""))),
        }),
      );
    rows.push([input, http === undefined ? "-" : await post(), entries === undefined ? "-" : await call()]);
  }
  await stillAlive();
  expectTable("Bulk publish", columns, rows);
});
