import { expect, it } from "vitest";
import { type Mesh, MeshError, type Table, type TableChange, systemClock } from "../../../mesh/index.ts";
import type { ConfigurationItem } from "../../blocks/configuration/port.ts";
import { open } from "./nats.ts";

it("tells what a lost watch missed, also when the store fails once more meanwhile", async () => {
  const cursor = { revision: 1, timeMs: 1 };
  const failures = [
    new MeshError("timeout", "nobody answers"),
    new MeshError("disconnected", "NATS is away"),
  ];
  let value = "1";
  const lost = Promise.withResolvers<void>();
  async function* changes(signal: AbortSignal): AsyncIterableIterator<TableChange> {
    yield { kind: "ready", cursor };
    await lost.promise;
    yield { kind: "reset", cursor };
    yield { kind: "put", key: ["a"], entry: { value: Buffer.from("3"), revision: 3 }, cursor };
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  }
  const table = {
    watch: (_: unknown, options: { signal: AbortSignal }) => Promise.resolve(changes(options.signal)),
    getMany: () => {
      const failure = value === "2" ? failures.shift() : undefined;
      const entry = { value: Buffer.from(value), revision: Number(value) };
      return failure === undefined ? Promise.resolve([entry]) : Promise.reject(failure);
    },
  } as unknown as Table;
  const mesh = { table: () => Promise.resolve(table) } as unknown as Mesh;
  const log = { warn: () => {}, debug: () => {} };
  const context = { mesh, namespace: "ns", name: "settings", clock: systemClock, log };
  const store = await open(context as unknown as Parameters<typeof open>[0]);
  const told: [string, ConfigurationItem][] = [];
  const signal = new AbortController().signal;
  const subscription = await store.subscribe(["a"], {}, (...change) => void told.push(change), signal);
  value = "2";
  lost.resolve();
  const values = (): string[] => told.map(([, item]) => item.value);
  await expect.poll(values, { timeout: 20_000 }).toEqual(["2", "3"]);
  await subscription.stop();
});
