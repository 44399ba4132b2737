import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { openEtcd } from "./etcd.ts";

/** Something that takes connections and is no etcd. */
async function listening(take: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    take(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const endpoints = [`127.0.0.1:${port}`];
  const etcd = openEtcd({
    endpoints,
    tls: undefined,
    timeoutMs: 5_000,
    clock: manualClock(),
    log: silentLog,
  });
  return {
    etcd,
    read: () => etcd.call("KV/Range", "read", new Uint8Array(), new AbortController().signal),
    taken: () => sockets.size,
    /** A connection of somebody else, until it has ended. */
    passBy: () => once(connect(port, "127.0.0.1").resume(), "close"),
    [Symbol.dispose]() {
      etcd.close();
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

it("is not asked on and on where something takes connections and ends them", async () => {
  using server = await listening((socket) => socket.destroy());
  await expect(server.read()).rejects.toThrow();
  expect(server.etcd.awaySinceMs()).toBeDefined();
  const others = 50;
  for (let i = 0; i < others; i++) await server.passBy();
  expect(server.taken()).toBe(2 + others);
});

it("is not connected to again once it is closed", async () => {
  const first = Promise.withResolvers<void>();
  using server = await listening(() => first.resolve());
  const call = server.read();
  await first.promise;
  server.etcd.close();
  await expect(call).rejects.toThrow();
  expect(server.taken()).toBe(1);
});
