/**
 * Finding and sharing NATS with real processes: a real nats-server, and children that stand for sidecars.
 * Every test has a home and a usual port of its own, so none meets a server of the user on 4222.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { beforeAll, expect, test } from "vitest";
import { systemClock } from "../../../mesh/clock.ts";
import { findNats, openHome, sharedStatus, stopShared } from "../../../mesh/server/index.ts";
import type { EnsureResult, FindOptions, FoundNats, Home } from "../../../mesh/server/index.ts";
import { waitLock } from "../../../mesh/server/lock.ts";
import { probe } from "../../../mesh/server/probe.ts";
import { guardProcess } from "../../kit/cleanup.ts";
import { eventually } from "../../kit/eventually.ts";
import { natsServerBinary } from "../../kit/nats-binary.ts";
import { nodeBinary } from "../../kit/paths.ts";
import { freePort } from "../../kit/ports.ts";
import { standsStill, startProcess, type RunningProcess } from "../../kit/process.ts";
import { tempDir, type TempDir } from "../../kit/temp-dir.ts";
import type { ChildOptions } from "./find-nats-child.ts";

const script = join(import.meta.dirname, "find-nats-child.ts");
const silent = (): void => {};

let binary: string;
beforeAll(async () => {
  binary = await natsServerBinary();
}, 600_000);

type Place = AsyncDisposable & {
  readonly home: Home;
  readonly port: number;
  find(more?: Partial<FindOptions>): Promise<FoundNats>;
};

/** An empty home with a usual port; whatever shared server runs there is stopped at the end. */
async function place(name = "home"): Promise<Place> {
  const folder: TempDir = tempDir("weft");
  const home = openHome({ home: folder.join(name), env: {} });
  const port = await freePort();
  const common = {
    home: home.path,
    binary,
    env: {},
    clock: systemClock,
    progress: silent,
    defaultPort: port,
  };
  return {
    home,
    port,
    async find(more) {
      const found = await findNats({ ...common, ...more });
      guardServer(home);
      return found;
    },
    async [Symbol.asyncDispose]() {
      await stopShared({ home: home.path, env: {}, clock: systemClock });
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** The shared server outlives whoever started it; this ends it when the test process is killed. */
function guardServer(home: Home): void {
  const pid = recordedPid(home);
  if (pid > 0) guardProcess(pid);
}

function recordedPid(home: Home): number {
  if (!existsSync(home.stateFile)) return 0;
  return (JSON.parse(readFileSync(home.stateFile, "utf8")) as { pid: number }).pid;
}

/** How often nats-server was started in this home, in its own words. */
function starts(home: Home): number {
  return readFileSync(home.logFile, "utf8").split("Starting nats-server").length - 1;
}

type Said = {
  progress?: string;
  found?: FoundNats;
  ensured?: EnsureResult;
  error?: string;
  binary?: { path: string };
};

function sidecar(options: ChildOptions, env?: Record<string, string>): Promise<RunningProcess> {
  const args = [script, JSON.stringify(options)];
  return startProcess({ name: "sidecar", command: nodeBinary(), args, bareEnv: true, env: env ?? {} });
}

/** The first line of a child that holds `key`. */
async function said<K extends keyof Said>(child: RunningProcess, key: K): Promise<NonNullable<Said[K]>> {
  return eventually(
    () => {
      const lines = child.logs().split("\n").slice(0, -1);
      const values = lines.map((line) => JSON.parse(line) as Said);
      const value = values.find((it) => it[key] !== undefined)?.[key];
      if (value == null) throw new Error(`said no "${key}":\n${child.logs()}`);
      return value;
    },
    { timeoutMs: 60_000 },
  );
}

async function answers(port: number): Promise<boolean> {
  return (await probe(port, systemClock, undefined, 10_000)).kind === "nats";
}

/** Resolves when nothing listens on the port any more. */
async function closed(port: number): Promise<void> {
  await eventually(async () => (await probe(port, systemClock)).kind === "closed");
}

/** A nats-server that Weft did not start. */
async function foreignServer(port: number, ...args: string[]): Promise<RunningProcess> {
  const all = ["-a", "127.0.0.1", "-p", String(port), ...args];
  const server = await startProcess({ name: "foreign nats-server", command: binary, args: all });
  await eventually(() => answers(port), { timeoutMs: 30_000 });
  return server;
}

/** Something that holds a port and never says a word. */
function mute(port: number): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.on("error", silent));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

async function store(url: string, text: string): Promise<void> {
  const nc = await connect({ servers: url });
  await (await jetstreamManager(nc)).streams.add({ name: "KEEP", subjects: ["keep"] });
  await jetstream(nc).publish("keep", text);
  await nc.close();
}

async function stored(url: string): Promise<string | undefined> {
  const nc = await connect({ servers: url });
  const message = await (await jetstreamManager(nc)).streams.getMessage("KEEP", { last_by_subj: "keep" });
  await nc.close();
  return message?.string();
}

test("ten sidecars that start in the same instant share one server", { timeout: 120_000 }, async () => {
  await using at = await place();
  const { home, port } = at;
  await using children = new AsyncDisposableStack();
  const all = await Promise.all(
    Array.from({ length: 10 }, async () =>
      children.use(await sidecar({ home: home.path, binary, defaultPort: port })),
    ),
  );
  const results = await Promise.all(all.map((child) => said(child, "found")));
  guardServer(home);
  expect(results.map(({ urls }) => urls)).toEqual(
    Array.from({ length: 10 }, () => [`nats://127.0.0.1:${port}`]),
  );
  expect(results.filter(({ way }) => way === "started")).toHaveLength(1);
  expect(results.filter(({ way }) => way === "joined")).toHaveLength(9);
  expect(starts(home)).toBe(1);
  for (const { detail } of results) expect(detail).toContain(`process ${recordedPid(home)},`);
  // All of them end, and the server stays.
  expect(await Promise.all(all.map((child) => child.exited))).toEqual(Array.from({ length: 10 }, () => 0));
  expect(await answers(port)).toBe(true);
});

test("after kill -9 of the server one of many sidecars starts it again: same port, same data", async () => {
  await using at = await place();
  const { home, port } = at;
  await using children = new AsyncDisposableStack();
  const all = await Promise.all(
    Array.from({ length: 5 }, async () =>
      children.use(await sidecar({ home: home.path, binary, defaultPort: port, stay: true })),
    ),
  );
  const [first] = await Promise.all(all.map((child) => said(child, "found")));
  const url = first?.urls[0] ?? "";
  await store(url, "still here");
  const before = recordedPid(home);
  guardProcess(before);
  process.kill(before, "SIGKILL");
  const results = await Promise.all(all.map((child) => said(child, "ensured")));
  guardServer(home);
  expect(results).toEqual(Array.from({ length: 5 }, () => ({ urls: [url], restarted: true, moved: false })));
  expect(starts(home)).toBe(2);
  expect(recordedPid(home)).not.toBe(before);
  expect(await stored(url)).toBe("still here");
}, 180_000);

test("works in an empty environment, in a folder with a difficult name, and leaves nothing open", async () => {
  await using at = await place('a "b" ü\\c');
  const { home, port } = at;
  copyFileSync(binary, join(home.binFolder, "nats-server"));
  await using child = await sidecar({ home: home.path, defaultPort: port });
  const found = await said(child, "found");
  guardServer(home);
  expect(found).toMatchObject({ way: "started", urls: [`nats://127.0.0.1:${port}`] });
  await child.exited;
  expect(await answers(port)).toBe(true);
  expect(readFileSync(home.configFile, "utf8")).toContain("max_payload: 8MB");
  const pid = recordedPid(home);
  if (!existsSync("/proc/self/fd")) return;
  // Its own session, and neither a terminal nor a pipe of whoever started the sidecar.
  const inputs = spawnSync("ls", ["-l", `/proc/${pid}/fd`], { encoding: "utf8" }).stdout;
  expect(inputs).toContain("nats-server.log");
  expect(inputs).not.toMatch(/pipe:|tty|pts/);
  expect(readFileSync(`/proc/${pid}/environ`, "utf8")).toBe("");
  expect(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3]).toBe(String(pid));
});

test("a pipe of whoever started the sidecar closes with the sidecar", async () => {
  // Only Linux tells which files would be inherited.
  if (!existsSync("/proc/self/fd")) return;
  await using at = await place();
  const args = [script, JSON.stringify({ home: at.home.path, binary, defaultPort: at.port })];
  const stdio = Array.from({ length: 21 }, (_, fd) => (fd === 20 ? ("pipe" as const) : ("ignore" as const)));
  const child = spawn(nodeBinary(), args, { env: {}, stdio });
  guardProcess(child.pid ?? 0);
  const pipe = child.stdio.at(20);
  if (!(pipe instanceof Readable)) throw new Error("no pipe");
  await once(pipe.resume(), "end");
  guardServer(at.home);
  expect(await answers(at.port)).toBe(true);
});

test("a server on the usual port is found, never restarted, never stopped", async () => {
  await using at = await place();
  await using data = tempDir("foreign");
  await using server = await foreignServer(at.port, "-js", "-sd", data.path);
  const found = await at.find();
  expect(found).toMatchObject({ way: "found", urls: [`nats://127.0.0.1:${at.port}`] });
  expect(found.detail).toMatch(/^using the nats-server 2\.\d+\.\d+ found on 127\.0\.0\.1:\d+$/);
  expect(await stopShared({ home: at.home.path, env: {}, clock: systemClock })).toMatchObject({
    stopped: false,
  });
  expect(server.running()).toBe(true);
  await server.kill();
  expect(await found.ensure()).toEqual({ urls: found.urls, restarted: false, moved: false });
  expect(await answers(at.port)).toBe(false);
});

test.each([
  { what: "without JetStream", args: [], reason: "it has no JetStream" },
  { what: "with a password", args: ["-js", "--user", "u", "--pass", "p"], reason: "it asks for credentials" },
])("a server $what on the usual port is stepped around, and left alone", async ({ args, reason }) => {
  await using at = await place();
  await using data = tempDir("foreign");
  await using server = await foreignServer(at.port, "-sd", data.path, ...args);
  const found = await at.find();
  expect(found.way).toBe("started");
  expect(found.urls).not.toEqual([`nats://127.0.0.1:${at.port}`]);
  expect(found.detail).toContain(`; the nats-server on 127.0.0.1:${at.port} was not used: ${reason}`);
  // The next sidecar meets the first on the other port.
  expect(await at.find()).toMatchObject({ way: "joined", urls: found.urls });
  expect(await stopShared({ home: at.home.path, env: {}, clock: systemClock })).toMatchObject({
    stopped: true,
  });
  expect(server.running()).toBe(true);
});

test("with credentials a server that asks for them is used", async () => {
  await using at = await place();
  await using data = tempDir("foreign");
  await using _server = await foreignServer(at.port, "-js", "-sd", data.path, "--user", "u", "--pass", "p");
  expect(await at.find({ credentialsGiven: true })).toMatchObject({ way: "found" });
});

test("something that is not NATS is stepped around, and the port chosen then is kept", async () => {
  await using at = await place();
  using stack = new DisposableStack();
  stack.adopt(await mute(at.port), (it) => it.close());
  const found = await at.find();
  expect(found.way).toBe("started");
  expect(found.urls).not.toEqual([`nats://127.0.0.1:${at.port}`]);
  expect(found.detail).toContain(`what listens on 127.0.0.1:${at.port} was not used: nothing was said`);
  stack.dispose();
  process.kill(recordedPid(at.home), "SIGKILL");
  // The usual port is free again, but running clients look for the server where it was.
  await closed(Number(new URL(found.urls[0] ?? "").port));
  expect(await found.ensure()).toEqual({ urls: found.urls, restarted: true, moved: false });
  guardServer(at.home);
});

test("when the port was taken after a kill, the server moves and says so", async () => {
  await using at = await place();
  const found = await at.find();
  await store(found.urls[0] ?? "", "moved along");
  process.kill(recordedPid(at.home), "SIGKILL");
  await closed(at.port);
  await using data = tempDir("foreign");
  await using _server = await foreignServer(at.port, "-js", "-sd", data.path);
  const ensured = await found.ensure();
  guardServer(at.home);
  expect(ensured).toMatchObject({ restarted: true, moved: true });
  expect(ensured.urls).not.toEqual(found.urls);
  expect(await stored(ensured.urls[0] ?? "")).toBe("moved along");
  expect(await found.ensure()).toEqual({ urls: ensured.urls, restarted: false, moved: false });
});

test("a lock left by a dead process does not hold anyone up", async () => {
  await using at = await place();
  const { pid } = spawnSync(nodeBinary(), ["-e", "0"]);
  writeFileSync(at.home.lockFile, JSON.stringify({ pid, atMs: Date.now(), purpose: "starting nats-server" }));
  const all = await Promise.all(Array.from({ length: 5 }, () => at.find()));
  expect(all.filter(({ way }) => way === "started")).toHaveLength(1);
  expect(starts(at.home)).toBe(1);
  expect(existsSync(at.home.lockFile)).toBe(false);
});

test("a running server without a record is taken over, not doubled", async () => {
  await using at = await place();
  const first = await at.find();
  const pid = recordedPid(at.home);
  rmSync(at.home.stateFile);
  const second = await at.find();
  expect(second).toMatchObject({ way: "joined", urls: first.urls });
  expect(recordedPid(at.home)).toBe(pid);
  expect(starts(at.home)).toBe(1);
});

test("a server whose starter was killed at once is taken over, not doubled", async () => {
  await using at = await place();
  const slow = join(at.home.binFolder, "slow-nats-server");
  // Nothing of the server is to be seen for a while but its process.
  const text = `#!/bin/sh\n[ "$1" = --version ] || sleep 1\nexec '${binary}' "$@"\n`;
  writeFileSync(slow, text, { mode: 0o755 });
  await using child = await sidecar({ home: at.home.path, binary: slow, defaultPort: at.port });
  const where = { home: at.home.path, env: {}, clock: systemClock };
  await eventually(async () => (await sharedStatus(where)).running);
  await child.kill();
  const all = await Promise.all(Array.from({ length: 3 }, () => at.find()));
  expect(all.map(({ way, urls: [url] }) => ({ way, url }))).toEqual(
    Array.from({ length: 3 }, () => ({ way: "joined", url: `nats://127.0.0.1:${at.port}` })),
  );
  expect(starts(at.home)).toBe(1);
});

test("a frozen server is waited for, not doubled", async () => {
  await using at = await place();
  const found = await at.find();
  const pid = recordedPid(at.home);
  process.kill(pid, "SIGSTOP");
  await eventually(() => standsStill(pid));
  const waiting = found.ensure();
  // Each look waits half a second for an answer; by the third, `ensure` has given up on one and holds the
  // lock.
  for (let look = 0; look < 3; look += 1) {
    const status = await sharedStatus({ home: at.home.path, env: {}, clock: systemClock });
    expect(status).toMatchObject({ running: true, answers: false, pid });
  }
  process.kill(pid, "SIGCONT");
  expect(await waiting).toEqual({ urls: found.urls, restarted: false, moved: false });
  expect(starts(at.home)).toBe(1);
});

test("down stops the shared server, and only once; status follows", async () => {
  await using at = await place();
  const where = { home: at.home.path, env: {}, clock: systemClock };
  expect(await sharedStatus(where)).toMatchObject({ running: false, answers: false });
  await at.find();
  const pid = recordedPid(at.home);
  await eventually(async () =>
    expect(await sharedStatus(where)).toMatchObject({
      running: true,
      answers: true,
      pid,
      server: { port: at.port },
    }),
  );
  expect(await stopShared(where)).toMatchObject({ stopped: true, pid });
  // This test is the parent here: the id goes once Node has taken note of the end.
  await eventually(() => expect(() => process.kill(pid, 0)).toThrow("ESRCH"));
  expect(await answers(at.port)).toBe(false);
  expect(existsSync(at.home.stateFile)).toBe(false);
  expect(await stopShared(where)).toMatchObject({ stopped: false });
  expect(await sharedStatus(where)).toMatchObject({ running: false, answers: false });
});

/** Empty once the process has ended. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

test("down never ends another process that has the recorded id now", async () => {
  await using at = await place();
  await at.find();
  const state = JSON.parse(readFileSync(at.home.stateFile, "utf8")) as { pid: number };
  process.kill(state.pid, "SIGKILL");
  // A process that is about to end still shows its command line.
  await eventually(() => expect(commandLine(state.pid)).toBe(""));
  await using bystander = await startProcess({ name: "bystander", command: "sleep", args: ["600"] });
  writeFileSync(at.home.stateFile, JSON.stringify({ ...state, pid: bystander.pid }));
  expect(await stopShared({ home: at.home.path, env: {}, clock: systemClock })).toMatchObject({
    stopped: false,
  });
  expect(bystander.running()).toBe(true);
});

test("a home that cannot be written is a clear error", async () => {
  await using folder = tempDir("weft");
  writeFileSync(folder.join("file"), "");
  await using child = await sidecar({ defaultPort: await freePort(), binary }, { HOME: folder.join("file") });
  expect(await said(child, "error")).toMatch(
    /^FindNatsError: Weft cannot write to its folder .*ENOTDIR.*WEFT_HOME/,
  );
  expect(await child.exited).toBe(1);
});

test("a nats-server that cannot be used is a clear error, and nothing else is tried", async () => {
  await using at = await place();
  await expect(at.find({ binary: "/nowhere/nats-server" })).rejects.toThrow(
    /\/nowhere\/nats-server: .*ENOENT.*2\.14/,
  );
  await expect(at.find({ binary: nodeBinary() })).rejects.toThrow(/does not say that it is nats-server/);
  await expect(at.find({ binary: "no-such-nats" })).rejects.toThrow(/no-such-nats is not on the PATH/);
  expect(existsSync(at.home.lockFile)).toBe(false);
});

test("a start that fails tells what nats-server said", async () => {
  await using at = await place();
  // A file where the store has to make its folder.
  writeFileSync(join(at.home.dataFolder, "jetstream"), "");
  await expect(at.find()).rejects.toThrow(/nats-server did not start: .*exit code 1.*Can't start JetStream/);
});

test("waiting for a start ends with the signal", async () => {
  await using at = await place();
  const lock = await waitLock(at.home.lockFile, "test", { clock: systemClock, timeoutMs: 1 });
  const stop = new AbortController();
  const waiting = at.find({ signal: stop.signal });
  stop.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
  lock.release();
});

test("several sidecars that fetch the server at once get one working program", async () => {
  await using folder = tempDir("weft");
  const home = openHome({ home: folder.join("home"), env: {} });
  // No nats-server of this machine is in the way; everything else is as the user has it.
  const folders = (process.env["PATH"] ?? "")
    .split(":")
    .filter((path) => !existsSync(join(path, "nats-server")));
  const env = { ...(process.env as Record<string, string>), PATH: folders.join(":"), WEFT_NATS_SERVER: "" };
  await using children = new AsyncDisposableStack();
  const all = await Promise.all(
    Array.from({ length: 3 }, async () =>
      children.use(await sidecar({ home: home.path, defaultPort: 1, fetch: true }, env)),
    ),
  );
  for (const child of all) expect(await child.exited).toBe(0);
  const paths = await Promise.all(all.map(async (child) => (await said(child, "binary")).path));
  expect(new Set(paths)).toEqual(new Set([join(home.binFolder, "nats-server")]));
  const fetched = all
    .flatMap((child) => child.logs().split("\n"))
    .filter((line) => line.includes('"fetched '));
  expect(fetched).toHaveLength(1);
  expect(readdirSync(home.binFolder)).toEqual(["nats-server"]);
  expect(spawnSync(paths[0] ?? "", ["--version"], { encoding: "utf8" }).stdout).toContain("nats-server");
}, 600_000);
