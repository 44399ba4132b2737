// A Kafka broker that goes away while its consumer group shares anew: the sidecar lives on and gets its events after.
import { setTimeout as sleep } from "node:timers/promises";
import { Admin, Consumer } from "@platformatic/kafka";
import { expect, test } from "vitest";
import { assignPartitions } from "../../../src/components/connect/kafka-assign.ts";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { startKafka } from "../../kit/servers/kafka.ts";
import { pubsubComponent, subscription } from "./resources.ts";

const heartbeatMs = 100;

test("a broker that dies while the group shares anew", { timeout: 300_000 }, async () => {
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const kafka = stack.use(await startKafka());
  const app = stack.use(await startApp());
  app.on("/orders", () => undefined);
  const metadata = {
    brokers: kafka.address,
    authType: "none",
    initialOffset: "oldest",
    heartbeatInterval: `${heartbeatMs}ms`,
    sessionTimeout: "6s",
  };
  const resources = {
    "p.yaml": pubsubComponent("pubsub.kafka", metadata),
    "s.yaml": subscription("orders", "/orders"),
  };
  const sidecar = stack.use(await startSidecar({ appId: "mail", nats, appPort: app.port, resources }));
  const publish = async (n: number): Promise<void> => {
    const answer = await sidecar.post("/v1.0/publish/pubsub/orders", { n });
    if (answer.status !== 204) throw new Error(`${answer.status} ${answer.text}`);
  };
  // The broker makes the topic at its first use, which takes a moment.
  await eventually(() => publish(1), { timeoutMs: 60_000 });
  await app.received("/orders", 1, 60_000);
  const pid = sidecar.pid;
  const options = { clientId: "test", bootstrapBrokers: [kafka.address], retries: 0 };
  const members: Consumer[] = [];
  const member = (): Consumer => {
    const consumer = new Consumer({ ...options, groupId: "mail", partitionAssigner: assignPartitions });
    consumer.on("error", () => {});
    members.push(consumer);
    return consumer;
  };
  // One that does not look whether others have come holds up all of them.
  const reading = { topics: ["orders"], sessionTimeout: 10_000, heartbeatInterval: 9_000 };
  await member().consume(reading);
  const late = member()
    .consume(reading)
    .catch(() => undefined);
  const admin = new Admin(options);
  stack.defer(() => admin.close().catch(() => {}));
  await eventually(async () => {
    const groups = await admin.describeGroups({ groups: ["mail"] });
    expect(groups.get("mail")?.state).toMatch(/preparing.?rebalance/i);
  });
  // That the sidecar waits to be let in again is seen nowhere: it asks with its next heartbeat.
  await sleep(heartbeatMs * 10);
  await kafka.kill();
  await late;
  for (const consumer of members) await consumer.close(true).catch(() => {});
  await kafka.restart();
  await eventually(() => publish(2), { timeoutMs: 60_000 });
  const numbers = (): number[] =>
    app.requestsTo("/orders").map((request) => request.json<{ data: { n: number } }>().data.n);
  await eventually(() => expect(numbers()).toContain(2), { timeoutMs: 90_000 });
  expect([sidecar.running(), sidecar.pid]).toEqual([true, pid]);
});
