/** Chooses the loopback port of the shared server: the one it had, else the usual one, else the next free. */
import { createServer } from "node:net";
import type { Clock } from "../clock.ts";
import { FindNatsError } from "./errors.ts";
import { probe } from "./probe.ts";

/**
 * Ports tried upward from the usual one. Asking the system for any free port would give one of the range used
 * for outgoing connections, and a client that reconnects to such a port while the server is away can meet
 * itself there.
 */
const candidates = 200;
/** A killed server's port is free at once; the wait is for one that is still closing down. */
const reclaimMs = 3_000;
const pollMs = 50;

export type PortOptions = {
  /** The port the server had before; worth a wait, because clients reconnect to it by themselves. */
  readonly previous: number | undefined;
  /** The usual port; 4222 outside of tests. */
  readonly usual: number;
  /** Ports that another process took between our look and our start. */
  readonly avoid: ReadonlySet<number>;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
};

/** Resolves to a port that was free a moment ago. Throws FindNatsError when 200 ports in a row are taken. */
export async function choosePort(options: PortOptions): Promise<number> {
  const { previous, usual, avoid, clock, signal } = options;
  const last = Math.min(usual + candidates, 65_536) - 1;
  // A port that stepping aside from the usual one cannot give comes from another setting: the new one counts.
  const kept = previous !== undefined && previous >= usual && previous <= last && !avoid.has(previous);
  if (kept && (await reclaim(previous, clock, signal))) return previous;
  for (let port = usual; port <= last; port += 1) {
    if (!avoid.has(port) && (await isFree(port, clock, signal))) return port;
  }
  throw new FindNatsError(
    `No port from ${usual} to ${last} is free on 127.0.0.1. Give a server with --nats-url.`,
  );
}

async function reclaim(port: number, clock: Clock, signal: AbortSignal | undefined): Promise<boolean> {
  const endMs = clock.monotonicMs() + reclaimMs;
  for (;;) {
    if (await isFree(port, clock, signal)) return true;
    // Somebody who answers like a server will not go away by waiting.
    const answer = await probe(port, clock, signal);
    if (answer.kind === "nats" || clock.monotonicMs() >= endMs) return false;
    await clock.sleep(pollMs, signal);
  }
}

/**
 * Both looks are needed: on some systems one may bind 127.0.0.1 although another has the port on all
 * addresses.
 */
async function isFree(port: number, clock: Clock, signal: AbortSignal | undefined): Promise<boolean> {
  if (!(await canListen(port))) return false;
  return (await probe(port, clock, signal)).kind === "closed";
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
