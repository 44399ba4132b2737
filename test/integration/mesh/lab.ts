/** What the tests of the mesh have in common: a server, participants on it, a clock that can jump, short values. */
import { join } from "node:path";
import {
  type BodyStream,
  type Clock,
  type JoinOptions,
  type JoinedMesh,
  type MeshRequest,
  joinMesh,
  systemClock,
} from "../../../mesh/index.ts";
import { checkout, eventually, nodeBinary, startNats, startProcess } from "../../kit/index.ts";
import type { Nats, NatsOptions, RunningProcess } from "../../kit/index.ts";

export type Lab = AsyncDisposable & {
  readonly nats: Nats;
  /** A participant on the server, or elsewhere with `natsUrls`; connected when it resolves, closed with the lab. */
  join(app: string, options?: Partial<JoinOptions>): Promise<JoinedMesh>;
};

export async function startLab(options: NatsOptions = {}): Promise<Lab> {
  const nats = await startNats(options);
  const meshes: JoinedMesh[] = [];
  return {
    nats,
    async join(app, more = {}) {
      const mesh = joinMesh({ namespace: "default", app, natsUrls: [nats.url], ...more });
      meshes.push(mesh);
      await mesh.ready();
      return mesh;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(meshes.map((mesh) => mesh.close()));
      await nats[Symbol.asyncDispose]();
    },
  };
}

export const bytes = (text: string): Buffer => Buffer.from(text);
export const textOf = (value: Uint8Array | BodyStream | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(whole(value)).toString();

/** A body that must have come in one message. */
export function whole(body: Uint8Array | BodyStream): Uint8Array {
  if (body instanceof Uint8Array) return body;
  throw new Error("the body came as a stream");
}

/** A request for encoders, which take whole bodies. */
export const wholeRequest = (
  more: Partial<MeshRequest> = {},
): MeshRequest & { readonly body: Uint8Array } => {
  const made = request(more);
  return { ...made, body: whole(made.body) };
};

export function request(more: Partial<MeshRequest> = {}): MeshRequest {
  return { verb: "POST", path: "/", query: "", headers: [], body: new Uint8Array(0), ...more };
}

export const to = (app: string, timeoutMs = 0): { app: string; namespace: string; timeoutMs: number } => ({
  app,
  namespace: "default",
  timeoutMs,
});

/** The code of the MeshError with which this fails. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "success";
}

export type JumpingClock = Clock & {
  /** Time passes as for a process that is awake: what becomes due runs in its time. */
  jump(ms: number): void;
  /** Time passes as for a process that stood still: timers run late, once. */
  leap(ms: number): void;
};

/** The real clock, which can also be put ahead. */
export function jumpingClock(): JumpingClock {
  let aheadMs = 0;
  const timers = new Set<{ dueMs: number; everyMs: number; task: () => void; cancel: () => void }>();
  const nowMs = (): number => systemClock.monotonicMs() + aheadMs;
  const start = (task: () => void, delayMs: number, everyMs: number): { cancel(): void } => {
    const run = (): void => {
      if (everyMs === 0) timers.delete(timer);
      timer.dueMs = nowMs() + everyMs;
      task();
    };
    const real = everyMs === 0 ? systemClock.setTimeout(run, delayMs) : systemClock.setInterval(run, everyMs);
    const timer = { dueMs: nowMs() + delayMs, everyMs, task: run, cancel: () => real.cancel() };
    timers.add(timer);
    return {
      cancel() {
        timers.delete(timer);
        real.cancel();
      },
    };
  };
  const runDue = (): void => {
    for (const timer of [...timers]) {
      if (!timers.has(timer) || timer.dueMs > nowMs()) continue;
      if (timer.everyMs === 0) timer.cancel();
      timer.task();
    }
  };
  return {
    nowMs: () => systemClock.nowMs() + aheadMs,
    monotonicMs: nowMs,
    setTimeout: (task, delayMs) => start(task, delayMs, 0),
    setInterval: (task, periodMs) => start(task, periodMs, periodMs),
    sleep: (delayMs, signal) => systemClock.sleep(delayMs, signal),
    leap(ms) {
      aheadMs += ms;
      runDue();
    },
    jump(ms) {
      for (let leftMs = ms; leftMs > 0; leftMs -= 500) {
        aheadMs += Math.min(500, leftMs);
        runDue();
      }
    },
  };
}

/**
 * The real clock, on which time passes more slowly by this factor: limits are longer, plain waits are not. For limits
 * that a busy machine would reach.
 */
export function slowClock(factor: number): Clock {
  return {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() / factor,
    setTimeout: (task, delayMs) => systemClock.setTimeout(task, delayMs * factor),
    setInterval: (task, periodMs) => systemClock.setInterval(task, periodMs * factor),
  };
}

/** Shortest time of three tries, ms: a machine that stands still for a moment does not slow all of them. */
export async function quickestMs(work: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let attempt = 0; attempt < 3; attempt++) {
    const startMs = performance.now();
    await work();
    times.push(performance.now() - startMs);
  }
  return Math.min(...times);
}

/** Another process with a participant; see participant.ts for the roles. */
export async function startParticipant(
  url: string,
  role: string,
  ...args: string[]
): Promise<RunningProcess> {
  const program = join(checkout, "test/integration/mesh/participant.ts");
  const started = await startProcess({
    name: `${role} ${args.join(" ")}`,
    command: nodeBinary(),
    args: [program, url, role, ...args],
  });
  await eventually(() => started.logs().includes("ready\n"), {
    what: `${role} to be ready`,
    timeoutMs: 30_000,
  });
  return started;
}
