// `weft dead-letters` on what a real sidecar could not bring to its app.
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppReply, Nats, Sidecar } from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { makePlace, type Place } from "./place.ts";

const stack = new AsyncDisposableStack();
const resources = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms" }) };
let nats: Nats;
let here: Place;
let app: App;
let other: App;
let sidecar: Sidecar;
let failing = true;
const fails = (): AppReply | undefined => (failing ? { status: 500, body: "no stock" } : undefined);

beforeAll(async () => {
  nats = stack.use(await startNats());
  here = stack.use(await makePlace({ natsUrl: nats.url }));
  app = stack.use(await startApp({ routes: { "/orders": fails, "/many": fails } }));
  other = stack.use(await startApp());
  const mourned = (topic: string, route: string, deadLetterTopic: string) => ({
    pubsubname: "pubsub",
    topic,
    route,
    deadLetterTopic,
  });
  app.subscribe({ ...mourned("orders.*", "/orders", "dead.orders"), metadata: { ordered: "true" } }, fails);
  app.subscribe(mourned("many", "/many", "many.dead"), fails);
  other.subscribe({ pubsubname: "pubsub", topic: "orders.eu", route: "/orders" });
  sidecar = stack.use(await startSidecar({ appId: "mail", nats, resources, appPort: app.port }));
  const second = stack.use(await startSidecar({ appId: "stats", nats, resources, appPort: other.port }));
  await Promise.all([
    sidecar.subscribed("orders.*"),
    sidecar.subscribed("many"),
    second.subscribed("orders.eu"),
  ]);
});
afterAll(() => stack.disposeAsync());

type Letter = { readonly sequence: number; readonly id: string } & Readonly<Record<string, unknown>>;

async function letters(topic: string, count: number): Promise<Letter[]> {
  return eventually(
    async () => {
      const { code, logs } = await here.weft("dead-letters", "list", topic, "-o", "json", "--limit", "1000");
      expect({ code, logs }).toMatchObject({ code: 0 });
      const found = JSON.parse(logs) as Letter[];
      expect(found).toHaveLength(count);
      return found;
    },
    { timeoutMs: 30_000 },
  );
}

const weft = async (...args: string[]): Promise<string> => {
  const { code, logs } = await here.weft("dead-letters", ...args);
  expect({ code, logs }).toMatchObject({ code: 0 });
  return logs;
};

const ids = (requests: App, path: string): string[] =>
  requests.requestsTo(path).map((request) => request.json<{ id: string }>().id);

test("shows why an event is there, sends it to its group alone or to all, drops it", async () => {
  failing = true;
  const path = "/v1.0/publish/pubsub/orders.eu?metadata.orderingKey=c%201&metadata.cloudevent.id=";
  for (const id of ["one", "two", "three"]) expect((await sidecar.post(path + id, { id })).status).toBe(204);
  const found = await letters("dead.orders", 3);
  expect(found.map(({ id }) => id)).toEqual(["one", "two", "three"]);
  expect(found[0]).toMatchObject({
    topic: "orders.eu",
    group: "mail",
    subscription: "orders.*",
    tries: 1,
    originalSequence: expect.any(Number),
    reason: expect.stringMatching(/500.*no stock|no stock|500/),
    time: expect.stringMatching(/^20\d\d-.*Z$/),
  });
  const [one, two, three] = found.map(({ sequence }) => String(sequence));
  const table = await weft("list", "dead.orders");
  expect(table).toMatch(/SEQUENCE +TIME +FROM TOPIC +GROUP +TRIES +ID +REASON/);
  expect(table).toMatch(new RegExp(`${one} +20.* +orders.eu +mail +1 +one `));
  const shown = await weft("show", "dead.orders", two!);
  expect(shown).toMatch(/From topic +orders\.eu/);
  expect(shown).toContain('"id":"two"');

  failing = false;
  // The other group has had its own of each.
  await other.received("/orders", 3, 20_000);
  const before = { mail: app.requestsTo("/orders").length, stats: other.requestsTo("/orders").length };
  expect(await weft("redrive", "dead.orders", one!)).toContain("1 event of dead.orders sent back");
  await app.received("/orders", before.mail + 1);
  expect(ids(app, "/orders").at(-1)).toBe("one");
  expect(await weft("redrive", "dead.orders", two!, "--to-topic")).toContain("1 event");
  await other.received("/orders", before.stats + 1);
  await app.received("/orders", before.mail + 2);
  expect(ids(other, "/orders").slice(before.stats)).toEqual(["two"]);
  expect(app.requestsTo("/orders").at(-1)!.json()).toMatchObject({
    id: "two",
    data: { id: "two" },
    topic: "orders.eu",
  });
  expect(await weft("drop", "dead.orders", three!)).toContain("1 event of dead.orders dropped");
  expect(await weft("list", "dead.orders")).toContain("No events are in dead.orders.");
});

test("all of them: killed in the middle and begun again, nothing is lost", async () => {
  failing = true;
  const count = 200;
  await Promise.all(
    Array.from({ length: count }, (_, n) =>
      sidecar.post(`/v1.0/publish/pubsub/many?metadata.cloudevent.id=${n}`, { n }),
    ),
  );
  await letters("many.dead", count);
  failing = false;
  const before = app.requestsTo("/many").length;
  await using redrive = await here.start("src/cli/main.ts", [
    "dead-letters",
    "redrive",
    "many.dead",
    "--all",
  ]);
  await app.received("/many", before + 5);
  await redrive.kill("SIGKILL");
  await weft("redrive", "many.dead", "--all");
  const back = (): Set<string> => new Set(ids(app, "/many").slice(before));
  await eventually(() => expect(back().size).toBe(count), { timeoutMs: 30_000 });
  await letters("many.dead", 0);
});

test("says what is wrong", async () => {
  const wrong = async (...args: string[]): Promise<string> => {
    const { code, logs } = await here.weft("dead-letters", ...args);
    expect(code).not.toBe(0);
    return logs;
  };
  expect(await wrong("redrive", "dead.orders")).toContain(
    "name the sequences of events, as `list` shows them, or --all",
  );
  expect(await wrong("drop", "dead.orders", "12345")).toContain("no event 12345 is in dead.orders");
  expect(await wrong("drop", "dead.orders", "x")).toContain('"x" is no whole number above 0');
  expect(await wrong("list", "dead.orders", "--pubsub", "nope")).toContain(
    "has used a pubsub.nats component named nope",
  );
  const client = await nats.connect();
  const stored = await client.request("weft.default.topic.pubsub.foreign", "{}", { timeout: 5_000 });
  const { seq } = stored.json<{ seq: number }>();
  expect(await weft("list", "foreign")).toContain("not known: it was not put here by a sidecar");
  expect(await wrong("redrive", "foreign", String(seq))).toContain("use --to-topic <topic>");

  // One that cannot be sent back ends the run, which tells what was done before.
  const known = headers();
  known.set("Weft-Dead-Topic", "back");
  const half = "weft.default.topic.pubsub.half";
  await client.request(half, "{}", { timeout: 5_000, headers: known });
  await client.request(half, "{}", { timeout: 5_000 });
  const broken = await wrong("redrive", "half", "--all", "--to-topic");
  expect(broken).toContain("does not say where it came from");
  expect(broken).toContain("1 event of half sent back");
  expect(await weft("drop", "half", "--all")).toContain("1 event of half dropped");
});
