/**
 * A TCP proxy that breaks on command: cuts connections, swallows bytes, slows down. Stands between a sidecar and NATS
 * or between a sidecar and its app.
 */
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./ports.ts";

export type FaultProxy = AsyncDisposable & {
  readonly port: number;
  /** `scheme://127.0.0.1:port`. */
  url(scheme: string): string;
  /** Connections open now. */
  connections(): number;
  /** Connections accepted since the start, refused ones included. */
  accepted(): number;
  /** Resets all connections and every new one until `heal`. */
  cut(): void;
  /** Connections open and stay, but no byte passes in either direction until `heal`; then what waited passes. */
  block(): void;
  /** At most so many bytes a second in each direction of each connection, each byte later by the latency. */
  slow(bytesPerSecond: number, latencyMs?: number): void;
  heal(): void;
};

type Link = { readonly client: Socket; readonly target: Socket };

type Faults = {
  cut: boolean;
  blocked: boolean;
  bytesPerSecond: number;
  latencyMs: number;
  /** Resolves at the next change. */
  changed: PromiseWithResolvers<void>;
};

/** Bytes a direction may hold back before it stops reading. */
const MAX_HELD = 256 * 1024;
const POLL_MS = 20;

/** Starts a proxy in front of `127.0.0.1:targetPort`. */
export async function faultProxy(targetPort: number): Promise<FaultProxy> {
  const port = await freePort();
  const links = new Set<Link>();
  const faults: Faults = {
    cut: false,
    blocked: false,
    bytesPerSecond: Infinity,
    latencyMs: 0,
    changed: Promise.withResolvers(),
  };
  let accepted = 0;
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    accepted++;
    if (faults.cut) client.resetAndDestroy();
    else openLink(client, targetPort, links, faults);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  const set = (next: Partial<Faults>): void => {
    const before = faults.changed;
    Object.assign(faults, { cut: false, blocked: false, bytesPerSecond: Infinity, latencyMs: 0 }, next);
    faults.changed = Promise.withResolvers();
    before.resolve();
  };
  const reset = (): void => {
    for (const { client, target } of links) for (const socket of [client, target]) socket.resetAndDestroy();
  };
  return {
    port,
    url: (scheme) => `${scheme}://127.0.0.1:${port}`,
    connections: () => links.size,
    accepted: () => accepted,
    cut() {
      set({ cut: true });
      reset();
    },
    block: () => set({ blocked: true }),
    slow: (bytesPerSecond, latencyMs = 0) => set({ bytesPerSecond, latencyMs }),
    heal: () => set({}),
    [Symbol.asyncDispose]: () => closeProxy(server, reset),
  };
}

async function closeProxy(server: Server, reset: () => void): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  reset();
  await closed;
}

function openLink(client: Socket, targetPort: number, links: Set<Link>, faults: Faults): void {
  const target = connect({ port: targetPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const link = { client, target };
  links.add(link);
  for (const socket of [client, target]) {
    socket.on("error", () => {});
    socket.on("close", () => {
      links.delete(link);
      client.destroy();
      target.destroy();
    });
  }
  void relay(client, target, faults);
  void relay(target, client, faults);
}

type Held = { readonly bytes: Buffer; readonly dueMs: number };

/** Moves bytes from one socket to the other, each not before its time and not faster than allowed. */
async function relay(from: Socket, to: Socket, faults: Faults): Promise<void> {
  const held: Held[] = [];
  let heldBytes = 0;
  let ended = false;
  let wake = Promise.withResolvers<void>();
  from.on("data", (bytes) => {
    held.push({ bytes, dueMs: performance.now() + faults.latencyMs });
    heldBytes += bytes.length;
    if (heldBytes > MAX_HELD) from.pause();
    wake.resolve();
  });
  from.on("end", () => {
    ended = true;
    wake.resolve();
  });
  from.on("close", () => wake.resolve());
  for (;;) {
    const next = held.shift();
    if (next === undefined) {
      if (ended || from.destroyed) break;
      await wake.promise;
      wake = Promise.withResolvers();
      continue;
    }
    await deliver(next, to, faults);
    heldBytes -= next.bytes.length;
    if (heldBytes <= MAX_HELD) from.resume();
  }
  if (!to.destroyed) to.end();
}

async function deliver(held: Held, to: Socket, faults: Faults): Promise<void> {
  const waitMs = held.dueMs - performance.now();
  if (waitMs > 0) await sleep(waitMs);
  let rest = held.bytes;
  while (rest.length > 0 && !to.destroyed) {
    if (faults.blocked) {
      await faults.changed.promise;
      continue;
    }
    const share = Math.max(1, Math.floor((faults.bytesPerSecond * POLL_MS) / 1000));
    const part = rest.subarray(0, Math.min(rest.length, share));
    rest = rest.subarray(part.length);
    if (!to.write(part)) await drained(to);
    if (faults.bytesPerSecond !== Infinity) await sleep((part.length / faults.bytesPerSecond) * 1000);
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve();
    const done = (): void => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    socket.once("drain", done).once("close", done);
  });
}
