import { expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import type { PubSub } from "../../blocks/pubsub/port.ts";
import { open } from "./in-memory.ts";

const never = new AbortController().signal;

async function busyTopic(): Promise<{ port: PubSub; seen: string[]; release: () => void; logged: string[] }> {
  const logged: string[] = [];
  const log = { error: (text: string) => void logged.push(text) };
  const port = await open({ clock: manualClock(), log } as unknown as Parameters<typeof open>[0]);
  const gate = Promise.withResolvers<void>();
  const seen: string[] = [];
  await port.subscribe({ topic: "t", metadata: {}, rawPayload: false, batch: 1 }, async ({ data }) => {
    seen.push(Buffer.from(data).toString());
    await gate.promise;
  });
  return { port, seen, release: gate.resolve, logged };
}

function publish(port: PubSub, text: string, signal = never): Promise<void> {
  const message = {
    topic: "t",
    data: Buffer.from(text),
    metadata: {},
    contentType: undefined,
    id: undefined,
  };
  return port.publish(message, signal);
}

it("lets a publish wait while the subscriber is busy with an earlier event", async () => {
  const { port, seen, release } = await busyTopic();
  await publish(port, "1");
  let second = "waits";
  const waiting = publish(port, "2").then(() => (second = "done"));
  await new Promise((resolve) => setImmediate(resolve));
  expect([second, seen]).toEqual(["waits", ["1"]]);
  release();
  await waiting;
  expect(seen).toEqual(["1", "2"]);
});

it("gives up a publish whose caller does, and never delivers it", async () => {
  const { port, seen, release } = await busyTopic();
  await publish(port, "1");
  const caller = new AbortController();
  const given = publish(port, "2", caller.signal);
  caller.abort(new Error("gone"));
  await expect(given).rejects.toThrow("gone");
  release();
  await publish(port, "3");
  expect(seen).toEqual(["1", "3"]);
});

it("refuses a publish when 10,000 wait already", async () => {
  const { port, seen, release } = await busyTopic();
  await publish(port, "busy");
  const waiting = Array.from({ length: 10_000 }, (_, at) => publish(port, String(at)));
  await expect(publish(port, "too many")).rejects.toThrow("10000 publishes to topic t already wait");
  release();
  await Promise.all(waiting);
  expect(seen).toHaveLength(10_001);
});
