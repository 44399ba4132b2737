/** Binding of API ports: TCP addresses and socket files, with Dapr's patience for a port that is still taken. */
import { rmSync } from "node:fs";
import { connect, type Server } from "node:net";
import type { Clock } from "../../mesh/index.ts";

/** An empty host means all addresses of this machine. */
export type ListenTarget = { readonly host: string; readonly port: number } | { readonly socketPath: string };

/** A taken API port is tried again this often, ms. */
const retryMs = 250;

/** Listens once. Resolves with the bound port, 0 for a socket file. */
export async function listenOn(server: Server, target: ListenTarget): Promise<number> {
  if ("socketPath" in target) await freeSocketFile(target.socketPath);
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const done = (): void => {
      server.off("error", reject);
      // An error of a later accept must not end the process; the next client tries again.
      server.on("error", () => {});
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    };
    if ("socketPath" in target) server.listen(target.socketPath, done);
    else server.listen({ port: target.port, ...(target.host === "" ? {} : { host: target.host }) }, done);
  });
}

/** The file of a killed sidecar makes the address look taken; that of a living one is. Rejects with EADDRINUSE. */
async function freeSocketFile(path: string): Promise<void> {
  if (await answers(path)) {
    const taken: NodeJS.ErrnoException = new Error(`another process listens on ${path}`);
    taken.code = "EADDRINUSE";
    throw taken;
  }
  rmSync(path, { force: true });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (alive: boolean): void => {
      socket.destroy();
      resolve(alive);
    };
    socket.once("connect", () => finish(true));
    socket.once("error", () => finish(false));
  });
}

/**
 * Listens on every address, each tried for `patienceMs` while its port is taken. One success is enough.
 * Rejects with Dapr's text when none succeeds.
 */
export async function listenOnAny(
  listen: (target: ListenTarget) => Promise<number>,
  targets: readonly ListenTarget[],
  patienceMs: number,
  clock: Clock,
  onProblem: (text: string) => void,
): Promise<number> {
  const attempts = await Promise.allSettled(
    targets.map((target) => listenPatiently(listen, target, patienceMs, clock, onProblem)),
  );
  for (const [i, attempt] of attempts.entries()) {
    if (attempt.status === "rejected")
      onProblem(`could not listen on ${describe(targets[i]!)}: ${String(attempt.reason)}`);
  }
  const success = attempts.find((attempt) => attempt.status === "fulfilled");
  if (success === undefined) {
    throw new Error(
      `could not listen on any endpoint (${targets.map(describe).join(", ")}); is the port taken by another program?`,
    );
  }
  return success.value;
}

async function listenPatiently(
  listen: (target: ListenTarget) => Promise<number>,
  target: ListenTarget,
  patienceMs: number,
  clock: Clock,
  onProblem: (text: string) => void,
): Promise<number> {
  const endMs = clock.monotonicMs() + patienceMs;
  for (let tries = 1; ; tries++) {
    try {
      return await listen(target);
    } catch (error) {
      const taken = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
      if (!taken || clock.monotonicMs() >= endMs) throw error;
      if (tries === 1) onProblem(`${describe(target)} is taken; trying for ${patienceMs / 1000} s`);
      await clock.sleep(retryMs);
    }
  }
}

function describe(target: ListenTarget): string {
  return "socketPath" in target ? target.socketPath : `${target.host}:${target.port}`;
}
