/** The pub/sub components that need no server of another kind; pubsub.nats against a real nats-server. */
import { joinMesh, systemClock } from "../../mesh/index.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import * as inMemory from "../../src/components/pubsub/in-memory.ts";
import * as nats from "../../src/components/pubsub/nats.ts";
import { startNats } from "../kit/nats.ts";
import { durable, pubsubContract } from "./pubsub.ts";
import { silentLog } from "./silent-log.ts";

const shared = {
  env: {},
  name: "pubsub",
  version: "v1",
  namespace: "default",
  log: silentLog,
  clock: systemClock,
};
const signal = new AbortController().signal;

pubsubContract(
  "pubsub.in-memory",
  {
    concurrency: 1,
    metadata: "exactly",
    shares: false,
    keepsForNewGroups: false,
    keepsForAbsent: false,
    redelivers: false,
    handsOver: false,
    dropsRepeated: false,
    passesFailures: true,
    wildcard: (prefix) => ({ pattern: `${prefix}*`, fits: `${prefix}-a/b`, other: prefix.slice(1) }),
  },
  async () => ({
    open: (appId) =>
      inMemory.open({
        ...shared,
        type: inMemory.type,
        appId,
        metadata: {},
        properties: {},
        mesh: undefined as never,
        signal,
      }),
    close: async () => {},
  }),
);

pubsubContract(
  "pubsub.nats",
  {
    ...durable,
    concurrency: 8,
    dropsRepeated: true,
    ackWaitMs: 5_000,
    wildcard: (prefix) => ({ pattern: `${prefix}.>`, fits: `${prefix}.a.b c`, other: `${prefix}x.a` }),
  },
  async () => {
    const server = await startNats();
    const mesh = joinMesh({ namespace: "default", app: "contract", natsUrls: [server.url] });
    await mesh.ready();
    const properties = { concurrency: "8", backOff: "20ms,50ms", ackWait: "5s" };
    const { values } = readMetadata(nats.metadataSchema, "pubsub", properties);
    return {
      open: (appId) =>
        nats.open({ ...shared, type: nats.type, appId, metadata: values, properties, mesh, signal }),
      async close() {
        await mesh.close();
        await server[Symbol.asyncDispose]();
      },
    };
  },
);
