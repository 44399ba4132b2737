/**
 * Ports for what the user gave none. They come from below the range that systems use for outgoing connections, so
 * that nothing takes one between our choice and its use.
 */
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

const firstPort = 12_000;
const lastPort = 19_999;
const maxTries = 500;

/** `count` different ports on which nothing listens. Rejects when none can be found. */
export async function freePorts(count: number, avoid: ReadonlySet<number> = new Set()): Promise<number[]> {
  const chosen = new Set<number>();
  for (let tries = 0; tries < maxTries && chosen.size < count; tries++) {
    const port = randomInt(firstPort, lastPort + 1);
    if (!avoid.has(port) && (await isFree(port))) chosen.add(port);
  }
  if (chosen.size < count)
    throw new Error(`no free port between ${firstPort} and ${lastPort}; give the ports as flags`);
  return [...chosen];
}

async function isFree(port: number): Promise<boolean> {
  // Both: some systems let 127.0.0.1 be taken while all addresses are, and the other way round.
  return (await canListen({ port })) && (await canListen({ port, host: "127.0.0.1" }));
}

function canListen(where: { port: number; host?: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ ...where, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
