/**
 * A process that the CLI starts and answers for: it leads a group of its own, its output comes as lines, and ending
 * it ends the whole group.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Clock, Timer } from "../../mesh/index.ts";
import type { Guard } from "./guard.ts";
import { forwardLines, type LineSink } from "./lines.ts";

export type ChildOptions = {
  readonly command: string;
  readonly args: readonly string[];
  /** Name the program sees itself called by; `command` when not given. */
  readonly argv0?: string;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: "inherit" | "ignore";
  readonly onLine: LineSink;
  readonly guard: Guard;
  readonly clock: Clock;
};

/** How a process ended. `code` is its exit code, 128 + number after a signal. */
export type ChildEnd = { readonly code: number; readonly signal: NodeJS.Signals | undefined };

/** `clean`: TERM was enough. `late`: killed after its time. `forced`: killed because somebody insisted. */
export type StopOutcome = "clean" | "late" | "forced";

/**
 * A grandchild may hold the pipes for ever after the end of the child. They are closed when nothing has come for so
 * long, or when it writes on for longer than the second time, ms.
 */
const quietMs = 500;
const chattyMs = 5_000;
/** How long our own reader may rest until what is left of the output is given up, ms. */
const restMs = 60_000;
const pollMs = 25;
/** KILL cannot be refused; a process that still shows hangs in the kernel, ms. */
const killWaitMs = 5_000;

export class Child {
  readonly pid: number;
  /** Resolves once the process has ended and its output has been passed on. Never rejects. */
  readonly ended: Promise<ChildEnd>;
  readonly #guard: Guard;
  readonly #clock: Clock;
  readonly #process: ChildProcess;
  readonly #forced = new AbortController();

  private constructor(pid: number, started: ChildProcess, ended: Promise<ChildEnd>, options: ChildOptions) {
    this.pid = pid;
    this.ended = ended;
    this.#process = started;
    this.#guard = options.guard;
    this.#clock = options.clock;
  }

  /** Resolves once the process runs; rejects with the system's error when it cannot be started. */
  static async start(options: ChildOptions): Promise<Child> {
    const child = spawn(options.command, options.args, {
      env: options.env,
      stdio: [options.stdin, "pipe", "pipe"],
      detached: true,
      ...(options.argv0 === undefined ? {} : { argv0: options.argv0 }),
    });
    const ended = endOf(child, options);
    await once(child, "spawn");
    const pid = child.pid ?? 0;
    options.guard.add(pid);
    return new Child(pid, child, ended, options);
  }

  /**
   * TERM to the group, after `graceMs` KILL. Resolves when nothing of the group is left. Also to be called after the
   * process has ended by itself, since its children may live on.
   */
  async stop(graceMs: number): Promise<StopOutcome> {
    signalGroup(this.pid, "SIGTERM");
    let gone = await this.#groupGone(graceMs, this.#forced.signal);
    const outcome = gone ? "clean" : this.#forced.signal.aborted ? "forced" : "late";
    if (!gone) {
      signalGroup(this.pid, "SIGKILL");
      gone = await this.#groupGone(killWaitMs);
    }
    // Else the guard tries again when we have ended.
    if (gone) {
      await this.ended;
      this.#guard.remove(this.pid);
    }
    return outcome;
  }

  /** Cuts the grace period of a `stop` that is going on or comes later. */
  force(): void {
    this.#forced.abort();
  }

  async #groupGone(waitMs: number, forced?: AbortSignal): Promise<boolean> {
    const endMs = this.#clock.monotonicMs() + waitMs;
    while (this.#isAlive()) {
      if (this.#clock.monotonicMs() >= endMs || forced?.aborted) return false;
      await this.#clock.sleep(pollMs);
    }
    return true;
  }

  #isAlive(): boolean {
    const leaderEnded = this.#process.exitCode !== null || this.#process.signalCode !== null;
    return !leaderEnded || isGroupAlive(this.pid);
  }
}

async function endOf(child: ChildProcess, { onLine, clock }: ChildOptions): Promise<ChildEnd> {
  const outputs = [child.stdout, child.stderr].flatMap((stream) => (stream === null ? [] : [stream]));
  let passed = 0;
  let waiting = 0;
  const pass: LineSink = (line) => {
    passed++;
    const done = onLine(line);
    if (done === undefined) return undefined;
    waiting++;
    return done.then(() => void waiting--);
  };
  const forwarded = Promise.all(outputs.map((stream) => forwardLines(stream, pass)));
  const end = await new Promise<ChildEnd>((resolve) => {
    // A failed start is told by `start`; nobody waits for this end then.
    child.once("error", () => resolve({ code: 127, signal: undefined }));
    child.once("exit", (code, signal) => {
      resolve({
        code: code ?? 128 + (signal === null ? 0 : constants.signals[signal]),
        signal: signal ?? undefined,
      });
    });
  });
  const endedMs = clock.monotonicMs();
  const closeLater = (before: number): Timer =>
    clock.setTimeout(() => {
      const sinceMs = clock.monotonicMs() - endedMs;
      if (waiting > 0 ? sinceMs < restMs : passed > before && sinceMs < chattyMs) timer = closeLater(passed);
      else outputs.forEach((stream) => stream.destroy());
    }, quietMs);
  let timer = closeLater(passed);
  await forwarded;
  timer.cancel();
  return end;
}

function signalGroup(leader: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-leader, signal);
  } catch {
    // The group has ended meanwhile.
  }
}

/** Something of the group still runs. Processes that have ended but were not noted by their parent do not count. */
function isGroupAlive(leader: number): boolean {
  try {
    process.kill(-leader, 0);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
  try {
    return readdirSync("/proc").some((name) => /^\d+$/.test(name) && isLiveMember(name, leader));
  } catch {
    // No /proc on this system: what kill says must do.
    return true;
  }
}

function isLiveMember(pid: string, leader: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // After the program's name, which may hold spaces and parentheses: state, parent, group.
    const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(group) === leader && state !== "Z" && state !== "X";
  } catch {
    return false;
  }
}
