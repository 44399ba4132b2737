// Messages on the broker that are no events, and answers of apps that mean nothing: what becomes of the event. The rows
// are docs/hostile-events.md.
import { headers as natsHeaders, type NatsConnection } from "@nats-io/transport-node";
import { expect, test } from "vitest";
import { type AppReply, eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { type Event, pubsubComponent } from "../pubsub/resources.ts";
import { expectTable } from "./page.ts";

const pubsub = pubsubComponent("pubsub.nats", { backOff: "20ms" });
const patient = { timeoutMs: 30_000 };

const answers: readonly (readonly [input: string, reply: AppReply])[] = [
  ["200 without a body", {}],
  ["200 `{}`", { body: {} }],
  ['200 `{"status":"SUCCESS"}`', { body: { status: "SUCCESS" } }],
  ['200 `{"status":"success"}`', { body: { status: "success" } }],
  ['200 `{"status":"OK"}`', { body: { status: "OK" } }],
  ['200 `{"STATUS":"DROP"}`', { body: { STATUS: "DROP" } }],
  ['200 `{"status":7}`', { body: { status: 7 } }],
  ['200 `{"status":null}`', { body: { status: null } }],
  ['200 `["RETRY"]`', { body: ["RETRY"] }],
  ["200 and broken JSON", { headers: { "content-type": "application/json" }, body: '{"status":"RETRY"' }],
  ["200 and JSON of 100,000 levels", { body: "[".repeat(100_000) }],
  ["200 and 1 MB of text", { body: "x".repeat(1_000_000) }],
  ["204 and a header `status: RETRY`", { status: 204, headers: { status: "RETRY" } }],
  ["301 to another place", { status: 301, headers: { location: "/elsewhere" } }],
  ["400", { status: 400 }],
  ["404", { status: 404 }],
  ['500 `{"status":"SUCCESS"}`', { status: 500, body: { status: "SUCCESS" } }],
  ['503 `{"status":"DROP"}`', { status: 503, body: { status: "DROP" } }],
];

test("answers of an app", async () => {
  await using nats = await startNats();
  const topics = [
    { pubsubname: "pubsub", topic: "kept", route: "/kept", deadLetterTopic: "dead" },
    { pubsubname: "pubsub", topic: "plain", route: "/plain" },
    { pubsubname: "pubsub", topic: "dead", route: "/dead" },
  ];
  await using app = await startApp({ subscriptions: topics });
  const seen = new Map<string, number>();
  const countOf = (topic: string, index: number): number => seen.get(`${topic}${index}`) ?? 0;
  for (const topic of ["kept", "plain"]) {
    app.on(`/${topic}`, (request) => {
      const index = request.json<Event>().data as number;
      const count = countOf(topic, index) + 1;
      seen.set(`${topic}${index}`, count);
      return count === 1 ? answers[index]![1] : {};
    });
  }
  app.on("/dead", () => ({}));
  const resources = { "p.yaml": pubsub };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  await sidecar.subscribed("dead");
  for (const index of answers.keys())
    for (const topic of ["kept", "plain"]) await sidecar.post(`/v1.0/publish/pubsub/${topic}`, index);
  const dead = (): unknown[] => app.requestsTo("/dead").map((request) => request.json<Event>().data);
  await done(await nats.connect());
  expect(seen.size).toBe(answers.length * 2);
  const rows = answers.map(([input], index) => [
    input,
    countOf("plain", index) > 1 ? "comes again" : "done",
    dead().includes(index) ? "dead letter" : "done",
  ]);
  expectTable("Answers of an app", ["Answer", "The event", "With a dead-letter topic"], rows);
});

/** Waits until no consumer of the component has an event that waits or is under way: dead letters are events too. */
async function done(connection: NatsConnection): Promise<void> {
  await eventually(
    async () => {
      const list = await connection.request("$JS.API.CONSUMER.LIST.weft__topics__default__pubsub");
      const { consumers } = list.json<{ consumers: { num_pending: number; num_ack_pending: number }[] }>();
      expect(consumers.length).toBeGreaterThan(0);
      expect(consumers.filter((it) => it.num_pending + it.num_ack_pending > 0)).toEqual([]);
    },
    { timeoutMs: 60_000 },
  );
}

const json = "application/cloudevents+json";
const messages: readonly (readonly [input: string, body: string | Buffer, type?: string])[] = [
  ["text under `application/cloudevents+json`", "no JSON", json],
  ["`null` under it", "null", json],
  ["`[]` under it", "[]", json],
  ["`{}` under it", "{}", json],
  ["an object and more text", '{"id":"1","data":1} x', json],
  ["`data` null", '{"id":"1","data":null}', json],
  ["a broken `data_base64`", '{"id":"1","data_base64":"%%%"}', json],
  ["`expiration` that is no time", '{"id":"1","expiration":"soon"}', json],
  ["`expiration` in the past", '{"id":"1","expiration":"2001-01-01T00:00:00Z"}', json],
  ["JSON of 1,500 levels", `{"data":${"[".repeat(1_500)}${"]".repeat(1_500)}}`, json],
  ["nothing, without a content type", ""],
  ["bytes that are no UTF-8", Buffer.from([0xff, 0xfe])],
  ["a JSON object that is no CloudEvent", '{"total":12}'],
];

test("messages of other programs on NATS", async () => {
  await using nats = await startNats();
  const rules = { rules: [{ match: "event.type == 'never'", path: "/never" }], default: "/in" };
  const topics = messages.flatMap((_, index) => [`m${index}`, `r${index}`]);
  await using app = await startApp({
    subscriptions: [
      ...messages.map((_, index) => ({
        pubsubname: "pubsub",
        topic: `m${index}`,
        route: "/in",
        deadLetterTopic: `dead${index}`,
      })),
      ...messages.map((_, index) => ({
        pubsubname: "pubsub",
        topic: `r${index}`,
        routes: rules,
        deadLetterTopic: `deadr${index}`,
      })),
    ],
    routes: { "/in": () => ({}) },
  });
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: { "p.yaml": pubsub },
    appPort: app.port,
  });
  await eventually(
    () => expect(sidecar.logs().match(/subscribed to topic [mr]\d+ /g)).toHaveLength(topics.length),
    patient,
  );
  const connection = await nats.connect();
  for (const [index, [, body, type]] of messages.entries()) {
    for (const topic of [`m${index}`, `r${index}`]) {
      const headers = natsHeaders();
      headers.set("Nats-Msg-Id", topic);
      if (type !== undefined) headers.set("Content-Type", type);
      await connection.request(`weft.default.topic.pubsub.${topic}`, body, { headers, timeout: 5_000 });
    }
  }
  const delivered = (): number => app.requestsTo("/in").length;
  const dead = (): string[] =>
    [...sidecar.logs().matchAll(/event of topic (\w+) of pubsub goes to the dead/g)].map(
      ([, topic]) => topic!,
    );
  await eventually(() => expect(delivered() + dead().length).toBe(topics.length), patient);
  const outcome = (topic: string): string => {
    const told = `event of topic ${topic} of pubsub goes to the dead-letter topic \\w+: ([^"]*)`;
    const [, why] = new RegExp(told).exec(sidecar.logs()) ?? [];
    if (why === undefined) return "delivered";
    return why.includes("expired") ? "dead letter: expired" : "dead letter";
  };
  const rows = messages.map(([input], index) => [input, outcome(`m${index}`), outcome(`r${index}`)]);
  expectTable(
    "Messages of other programs",
    ["Message", "Without rules", "With a rule on `event.type`"],
    rows,
  );
});

const statuses = (reply: unknown): AppReply => ({ body: reply });
/** The batch has the entries a and b. `ids` are theirs. */
const bulkAnswers: readonly (readonly [input: string, reply: (ids: readonly string[]) => AppReply])[] = [
  ["200 without a body", () => ({})],
  ["200 and broken JSON", () => ({ body: "{" })],
  ["200 `[]`", () => statuses([])],
  ["200, `statuses` null", () => statuses({ statuses: null })],
  ["200, `statuses` an object", () => statuses({ statuses: {} })],
  ["200, an entry missing", ([a]) => statuses({ statuses: [{ entryId: a, status: "SUCCESS" }] })],
  ["200, unknown entryIds", () => statuses({ statuses: [{ entryId: "nobody", status: "SUCCESS" }] })],
  [
    "200, unknown statuses",
    (ids) => statuses({ statuses: ids.map((entryId) => ({ entryId, status: "fine" })) }),
  ],
  ["200, no statuses in the entries", (ids) => statuses({ statuses: ids.map((entryId) => ({ entryId })) })],
  ["200, entries that are no objects", () => statuses({ statuses: [null, 1, "x"] })],
  [
    "200, one SUCCESS and one DROP",
    ([a, b]) =>
      statuses({
        statuses: [
          { entryId: a, status: "SUCCESS" },
          { entryId: b, status: "DROP" },
        ],
      }),
  ],
  ["404", () => ({ status: 404 })],
  ["500", () => ({ status: 500 })],
];

test("answers to a batch", async () => {
  await using nats = await startNats();
  const bulkSubscribe = { enabled: true, maxMessagesCount: 2, maxAwaitDurationMs: 5_000 };
  await using app = await startApp({
    subscriptions: bulkAnswers.map((_, index) => ({
      pubsubname: "pubsub",
      topic: `b${index}`,
      route: `/b${index}`,
      deadLetterTopic: `dead${index}`,
      bulkSubscribe,
    })),
    fallback: () => ({}),
  });
  for (const [index, [, reply]] of bulkAnswers.entries()) {
    app.on(`/b${index}`, (request) =>
      reply(request.json<{ entries: { entryId: string }[] }>().entries.map(({ entryId }) => entryId)),
    );
  }
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: { "p.yaml": pubsub },
    appPort: app.port,
  });
  await eventually(
    () => expect(sidecar.logs().match(/subscribed to topic b\d+ /g)).toHaveLength(bulkAnswers.length),
    patient,
  );
  for (const index of bulkAnswers.keys()) {
    await sidecar.http(`/v1.0/publish/bulk/pubsub/b${index}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(["a", "b"].map((id) => ({ entryId: id, event: id, contentType: "text/plain" }))),
    });
  }
  await eventually(() => {
    for (const index of bulkAnswers.keys()) expect(app.requestsTo(`/b${index}`)).toHaveLength(1);
  }, patient);
  const connection = await nats.connect();
  const deadLetters = async (index: number): Promise<number> => {
    const filter = JSON.stringify({ subjects_filter: `weft.default.topic.pubsub.dead${index}` });
    const info = await connection.request("$JS.API.STREAM.INFO.weft__topics__default__pubsub", filter);
    const { subjects } = info.json<{ state: { subjects?: Record<string, number> } }>().state;
    return Object.values(subjects ?? {})[0] ?? 0;
  };
  const expected = [2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 0, 2];
  await eventually(async () => {
    expect(await Promise.all([...bulkAnswers.keys()].map(deadLetters))).toEqual(expected);
  }, patient);
  const words = ["both done", "one done, one dead letter", "two dead letters"];
  const rows = bulkAnswers.map(([input], index) => [input, words[expected[index]!]!]);
  expectTable("Answers to a batch", ["Answer", "Of two entries"], rows);
});
