/**
 * Free TCP ports for tests that run in parallel. Each test process claims a block of ports by listening on its first
 * one, which the system undoes when the process ends. The blocks lie below the range from which systems take the
 * local ports of outgoing connections, so nothing takes a port between handing it out and using it.
 */
import { createServer } from "node:net";
import type { Server } from "node:net";

const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;
const BLOCK = 80;

type PortBlock = { readonly base: number; next: number };

const myBlock = ((): (() => Promise<PortBlock>) => {
  let claimed: Promise<PortBlock> | undefined;
  return () => (claimed ??= claimBlock());
})();

async function claimBlock(): Promise<PortBlock> {
  const blocks = Math.floor((LAST_PORT - FIRST_PORT) / BLOCK);
  // Neighbouring process ids start far apart, so that parallel workers seldom meet.
  const start = (process.pid * 37) % blocks;
  for (let step = 0; step < blocks; step++) {
    const base = FIRST_PORT + ((start + step) % blocks) * BLOCK;
    const claim = await listen(base, "127.0.0.1");
    if (claim === undefined) continue;
    claim.unref();
    return { base, next: 1 };
  }
  throw new Error(`no free block of ${BLOCK} ports between ${FIRST_PORT} and ${LAST_PORT}`);
}

/** A TCP port on which nothing listens and that no other test gets. Rejects when all ports of this process are busy. */
export async function freePort(): Promise<number> {
  const block = await myBlock();
  for (let step = 1; step < BLOCK; step++) {
    const port = block.base + block.next;
    block.next = block.next + 1 === BLOCK ? 1 : block.next + 1;
    if (await isFree(port)) return port;
  }
  throw new Error(
    `all ${BLOCK - 1} ports of this test process are in use; dispose of what earlier tests started`,
  );
}

async function isFree(port: number): Promise<boolean> {
  // Some systems let 0.0.0.0 and 127.0.0.1 be bound at the same time, so both are tried.
  for (const host of ["0.0.0.0", "127.0.0.1"]) {
    const server = await listen(port, host);
    if (server === undefined) return false;
    await new Promise((resolve) => server.close(resolve));
  }
  return true;
}

function listen(port: number, host: string): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => resolve(undefined));
    server.listen({ port, host, exclusive: true }, () => resolve(server));
  });
}
