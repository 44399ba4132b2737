/** Every state component under the contract suite; state.nats against a real nats-server. */
import { randomUUID } from "node:crypto";
import { type Clock, type Mesh, joinMesh } from "../../mesh/index.ts";
import type { ComponentContext, MetadataSchema, MetadataValues } from "../../src/components/component.ts";
import * as inMemory from "../../src/components/state/in-memory.ts";
import * as nats from "../../src/components/state/nats.ts";
import { startNats } from "../kit/nats.ts";
import { manualClock } from "./manual-clock.ts";
import { silentLog } from "./silent-log.ts";
import { stateContract } from "./state.ts";

stateContract("state.in-memory", { foreignEtag: randomUUID() }, async () => {
  const clock = manualClock();
  const unused = undefined as unknown as Mesh;
  const store = await inMemory.open(
    context<typeof inMemory.metadataSchema>({ maxEntries: 100_000 }, unused, clock),
  );
  return { store, close: () => store.close(), advance: (ms) => clock.advance(ms) };
});

stateContract("state.nats", { foreignEtag: "987654321", malformedEtag: "not-a-number" }, async () => {
  const server = await startNats();
  const mesh = joinMesh({ namespace: "default", app: "contract", natsUrls: [server.url] });
  await mesh.ready();
  const store = await nats.open(context<typeof nats.metadataSchema>({ storage: "file" }, mesh, mesh.clock));
  return {
    store,
    async close() {
      await store.close();
      await mesh.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

function context<S extends MetadataSchema>(
  metadata: MetadataValues<S>,
  mesh: Mesh,
  clock: Clock,
): ComponentContext<S> {
  return {
    name: "store",
    type: "state.tested",
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata,
    properties: {},
    mesh,
    clock,
    log: silentLog,
    env: {},
    signal: new AbortController().signal,
  };
}
