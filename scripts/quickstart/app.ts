// One app of the quickstart with its sidecar, as a `weft run` of its own: started, watched, ended.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { forwardLines } from "../../src/cli/lines.ts";
import { root } from "../command.ts";

export const folder = join(root, "examples", "quickstart");

/** Lines kept of one process, for when something fails. */
const keptLines = 200;
const stopMs = 30_000;
/** `weft run` puts this before the app's own lines. */
const appPrefix = "== APP == ";

export interface AppOptions {
  readonly id: string;
  /** File below examples/quickstart. */
  readonly file: string;
  readonly appPort: number;
  readonly httpPort: number;
  /** More flags of `weft run`. */
  readonly flags?: readonly string[];
}

export class QuickstartApp {
  readonly id: string;
  readonly httpPort: number;
  /** Exit code of `weft run`; 1 when it was ended by a signal. */
  readonly ended: Promise<number>;
  /** Called with each line that the app itself prints. */
  onAppLine: (line: string) => void = () => {};
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];

  constructor({ id, file, appPort, httpPort, flags = [] }: AppOptions) {
    this.id = id;
    this.httpPort = httpPort;
    const ports = [`--app-port=${appPort}`, `--dapr-http-port=${httpPort}`];
    const lifeline = pathToFileURL(join(root, "scripts", "lifeline.mjs")).href;
    const run = ["--import", lifeline, join(root, "src", "cli", "main.ts"), "run", `--app-id=${id}`];
    const command = [...run, ...ports, ...flags, "--", process.execPath, join(folder, file)];
    this.#child = spawn(process.execPath, command, {
      cwd: folder,
      env: { ...cleanEnv(process.env), WEFT_PARENT_PID: String(process.pid) },
      stdio: ["ignore", "pipe", "pipe"],
      // A Ctrl-C at the terminal reaches it through us, once.
      detached: true,
    });
    this.ended = this.#watch();
  }

  /** Base of the sidecar's HTTP API. */
  get api(): string {
    return `http://127.0.0.1:${this.httpPort}/v1.0`;
  }

  /** The last lines of app and sidecar. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Ends the app and its sidecar. Resolves with false when that did not go cleanly. */
  async stop(): Promise<boolean> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill("SIGTERM");
    const limit = new AbortController();
    const late = sleep(stopMs, undefined, { signal: limit.signal }).catch(() => undefined);
    const code = await Promise.race([this.ended, late]);
    limit.abort();
    // `weft run` has a guard that ends what it leaves behind.
    if (code === undefined) this.#child.kill("SIGKILL");
    return code === 0;
  }

  async #watch(): Promise<number> {
    const outputs = [this.#child.stdout, this.#child.stderr].flatMap((stream) => stream ?? []);
    const read = Promise.all(outputs.map((stream) => forwardLines(stream, (line) => this.#take(line))));
    const [code] = (await once(this.#child, "exit").catch((error: unknown) => {
      this.#take(`could not be started: ${String(error)}`);
      return [1];
    })) as [number | null];
    await read;
    return code ?? 1;
  }

  #take(line: string): undefined {
    this.#lines.push(line);
    if (this.#lines.length > keptLines) this.#lines.shift();
    if (line.startsWith(appPrefix)) this.onAppLine(line.slice(appPrefix.length));
  }
}

/** What the user has set for other sidecars and apps must not reach these. */
function cleanEnv(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const foreign = /^(DAPR|APP)_|^NAMESPACE$/;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !foreign.test(name)));
}
