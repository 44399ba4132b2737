/**
 * What the real servers of the component tests have in common: an address given by the environment, else a program
 * of this machine on a free loopback port with data in a folder of its own, which can be killed and started again.
 */
import { chmodSync, chownSync, existsSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { temporaryRoot } from "../cleanup.ts";
import { eventually } from "../eventually.ts";
import { freePort } from "../ports.ts";
import { type RunningProcess, inheritedEnv, startProcess } from "../process.ts";
import { type TempDir, tempDir } from "../temp-dir.ts";

export type Server = AsyncDisposable & {
  readonly host: string;
  readonly port: number;
  /** `host:port`. */
  readonly address: string;
  running(): boolean;
  logs(): string;
  /** Ends it at once. Rejects for a server given by the environment. */
  kill(): Promise<void>;
  /** Starts it again on the same port with the same data, ending it first when it runs. */
  restart(): Promise<void>;
  pause(): Promise<void>;
  resume(): void;
};

export type Program = { readonly command: string; readonly args: readonly string[] };

export type ServerRecipe = {
  /** Shown before its log lines. */
  readonly name: string;
  /** Environment variable that gives `host:port` of a running server. */
  readonly variable: string;
  /** Makes the data folder and says how to start the server. Called once. */
  prepare(folder: TempDir, port: number): Promise<Program>;
  /** Throws or gives false until the server takes clients. */
  ready(host: string, port: number): Promise<boolean>;
  readonly readyTimeoutMs?: number;
  /** What `kill` sends; SIGKILL when not given. */
  readonly killSignal?: NodeJS.Signals;
};

/** Starts a server, or takes the one that the environment gives. Rejects with its log when it does not get ready. */
export async function startServer(recipe: ServerRecipe): Promise<Server> {
  const given = process.env[recipe.variable];
  if (given !== undefined && given !== "") return givenServer(recipe, given);
  const folder = tempDir(recipe.name);
  const port = await freePort();
  const program = await recipe.prepare(folder, port);
  const launch = async (): Promise<RunningProcess> => {
    const started = await startProcess({ ...program, name: `${recipe.name}:${port}`, cwd: folder.path });
    await untilReady(started, recipe, port);
    return started;
  };
  let running = await launch();
  return {
    host: "127.0.0.1",
    port,
    address: `127.0.0.1:${port}`,
    running: () => running.running(),
    logs: () => running.logs(),
    kill: async () => void (await running.kill(recipe.killSignal ?? "SIGKILL")),
    async restart() {
      await running[Symbol.asyncDispose]();
      // Children of a killed server may hold its port or data for a moment.
      running = await eventually(launch, { timeoutMs: 60_000, everyMs: 200, what: `${recipe.name} again` });
    },
    pause: () => running.pause(),
    resume: () => running.resume(),
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function untilReady(started: RunningProcess, recipe: ServerRecipe, port: number): Promise<void> {
  const attempt = async (): Promise<boolean> => !started.running() || (await recipe.ready("127.0.0.1", port));
  const timeoutMs = recipe.readyTimeoutMs ?? 30_000;
  await eventually(attempt, { timeoutMs, what: `${started.name} to take clients` }).catch((error: Error) => {
    throw new Error(`${error.message}\n${started.logs()}`);
  });
  if (!started.running()) throw new Error(`${started.name} ended at its start\n${started.logs()}`);
}

async function givenServer(recipe: ServerRecipe, given: string): Promise<Server> {
  const [host = "127.0.0.1", portText = ""] = given.split(":");
  const port = Number(portText);
  const refuse = (): never => {
    throw new Error(`this test ends its server, but ${recipe.variable} gives one; unset ${recipe.variable}`);
  };
  await eventually(() => recipe.ready(host, port), {
    what: `${recipe.name} at ${given} (${recipe.variable})`,
    timeoutMs: 30_000,
  });
  return {
    host,
    port,
    address: given,
    running: () => true,
    logs: () => "",
    kill: async () => refuse(),
    restart: async () => refuse(),
    pause: async () => refuse(),
    resume: () => refuse(),
    async [Symbol.asyncDispose]() {},
  };
}

/** Path of a program; looks beside PATH where Debian keeps servers. Throws naming the package that has it. */
export function findProgram(
  name: string,
  debianPackage: string,
  variable: string,
  more: readonly string[] = [],
): string {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin", ...more];
  const found = folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new Error(
    `${name} is not on PATH. Fix: apt-get install ${debianPackage} (its service need not run), or give the ` +
      `address of a running server in ${variable}`,
  );
}

/** Runs a program to its end; rejects with what it said when it fails. */
export async function runProgram(name: string, { command, args }: Program): Promise<void> {
  await using running = await startProcess({ name, command, args, env: inheritedEnv() });
  const code = await running.exited;
  if (code !== 0) throw new Error(`${command} ended with code ${code}\n${running.logs()}`);
}

/** The program as an unprivileged user when the tests run as root, which some servers refuse. `uid` owns `folder`. */
export function asUser(uid: number, folder: string, program: Program): Program {
  if (process.getuid?.() !== 0) return program;
  // The user must get through the folder above, which nobody else need list.
  chmodSync(temporaryRoot(), 0o711);
  chmodSync(folder, 0o700);
  chownSync(folder, uid, uid);
  const ids = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
  return { command: "setpriv", args: [...ids, program.command, ...program.args] };
}

/** Sends `question` and resolves with the first bytes of the answer. */
export function askSocket(host: string, port: number, question: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port }, () => socket.write(question));
    socket.setTimeout(2_000, () => socket.destroy(new Error("no answer within 2 s")));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the connection ended without an answer")));
    socket.once("data", (bytes: Buffer) => {
      resolve(bytes);
      socket.destroy();
    });
  });
}
