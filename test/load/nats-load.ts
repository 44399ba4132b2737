/** What NATS on this machine can do for one client with our own multiplexer and nothing else: our jobs' ceilings. */
import { systemClock } from "../../mesh/index.ts";
import { MeshConnection } from "../../mesh/connection.ts";
import { JetStream } from "../../mesh/jetstream.ts";
import { Mux } from "../../mesh/mux.ts";
import { findNats } from "../../mesh/server/index.ts";
import { topicTrees } from "../../mesh/subjects.ts";
import { bucketConfig, Topology, topicsConfig } from "../../mesh/topology.ts";

export type NatsCeiling = { readonly name: string; readonly run: () => Promise<unknown> };

const payload = Buffer.alloc(256, "x");

/** Name of the ceiling that reads many keys at once. */
export const manyKeysRead = "KV multi-read";

/** Connects and prepares; each ceiling is one operation to be repeated. `many`: keys of the read of many. */
export async function natsCeilings(
  url: string,
  many: number,
): Promise<{ ceilings: NatsCeiling[]; close(): Promise<void> }> {
  const clock = systemClock;
  const inbox = `_INBOX.bench${process.pid}`;
  const settings = {
    clientName: "weft bench",
    inbox,
    access: {},
    clock,
    log: () => {},
    random: Math.random,
    pingIntervalMs: 2_000,
  };
  const connection = new MeshConnection(settings, () =>
    findNats({ urls: [url], env: {}, clock, progress: () => {} }),
  );
  const mux = new Mux(connection);
  const js = new JetStream(connection, mux);
  const topology = new Topology(js, () => {});
  const limits = { maxAgeMs: 3_600_000, maxBytes: -1 };
  const options = { endMs: Number.POSITIVE_INFINITY, repeatMs: 0 };
  connection.start();
  await connection.ready();
  await topology.ensure(bucketConfig("bench", { storage: "file" }), options);
  await topology.ensure(topicsConfig("bench", topicTrees("bench.default.topic.bench"), limits), options);
  connection.subscribe("bench.echo", (message) => message.respond(message.data));
  await js.publish("$KV.bench.key", payload, undefined, options);
  const multi_last = Array.from({ length: many }, (_, at) => `$KV.bench.many-${at}`);
  for (const subject of multi_last) await js.publish(subject, payload, undefined, options);
  const read = (message: { data: Uint8Array }): { done: Uint8Array } => ({ done: message.data });
  return {
    ceilings: [
      { name: "NATS request", run: () => mux.request("bench.echo", payload, { timeoutMs: 5_000, read }) },
      {
        name: "JetStream publish",
        run: () => js.publish("bench.default.topic.bench.a", payload, undefined, options),
      },
      { name: "KV put", run: () => js.publish("$KV.bench.key", payload, undefined, options) },
      { name: "KV direct get", run: () => js.directGet("KV_bench", "$KV.bench.key", options) },
      { name: manyKeysRead, run: () => js.directGetMany("KV_bench", { multi_last }, options) },
    ],
    close: () => connection.close(),
  };
}

/** Closed loop with so many operations under way. */
export async function natsLoad(
  run: () => Promise<unknown>,
  parallel: number,
  seconds: number,
): Promise<number> {
  const startMs = systemClock.monotonicMs();
  const endMs = startMs + seconds * 1000;
  let count = 0;
  const worker = async (): Promise<void> => {
    while (systemClock.monotonicMs() < endMs) {
      await run();
      count++;
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return count / ((systemClock.monotonicMs() - startMs) / 1000);
}
