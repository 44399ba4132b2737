// What pubsub.redis leaves at the server, which other programs and daprd share: streams, groups, fields.
import { expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { askSocket, type Server } from "../../kit/servers/server.ts";
import { stateComponent } from "../state/resources.ts";

test("a topic is a stream, a consumerID its group; {namespace} stands before topics unseen by apps", async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const groups: readonly (readonly [string, Readonly<Record<string, string>>])[] = [
    ["absent", {}],
    ["empty", { consumerid: "" }],
    ["blank", { ConsumerID: "  " }],
    ["named", { consumerID: " g-{appID} " }],
    ["spaced", { consumerID: "{namespace}" }],
  ];
  const subscriptions = groups.map(([topic]) => ({ pubsubname: topic, topic, route: `/${topic}` }));
  await using app = await startApp({ subscriptions, fallback: () => ({}) });
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    env: { NAMESPACE: "blue" },
    resources: Object.fromEntries(
      groups.map(([name, metadata]) => [
        `${name}.yaml`,
        stateComponent(name, "pubsub.redis", { redisHost: redis.address, ...metadata }),
      ]),
    ),
  });
  for (const [topic] of groups) {
    await sidecar.logged(new RegExp(`app is subscribed to topic ${topic} `));
    const path = `/v1.0/publish/${topic}/${topic}?metadata.rawPayload=true&metadata.color=red`;
    expect((await sidecar.post(path, '{"id":"1"}')).status).toBe(204);
    const [event] = await app.received(`/${topic}`, 1);
    expect([event!.body.toString(), event!.headers["color"]]).toEqual(['{"id":"1"}', "red"]);
  }
  const groupOf = async (stream: string): Promise<string> =>
    (await ask(redis, `XINFO GROUPS ${stream}`)).split("\r\n")[5]!;
  expect(await groupOf("absent")).toBe("shop");
  expect(await groupOf("empty")).toBe("shop");
  expect(await groupOf("blank")).toBe("shop");
  expect(await groupOf("named")).toBe("g-shop");
  expect(await groupOf("bluespaced")).toBe("blue.shop");
  const entry = (await ask(redis, "XRANGE named - +")).split("\r\n");
  const [data, metadata] = ["data", "metadata"].map((field) => entry[entry.indexOf(field) + 2]!);
  expect(data).toBe('{"id":"1"}');
  expect(JSON.parse(metadata!)).toEqual({ color: "red", rawPayload: "true" });
});

async function ask(redis: Server, command: string): Promise<string> {
  return (await askSocket(redis.host, redis.port, `${command}\r\n`)).toString();
}
