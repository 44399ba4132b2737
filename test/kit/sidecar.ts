/**
 * A real sidecar process beside an app: free ports, a home of its own, resources written from text. Readiness is asked
 * for over HTTP, never slept for.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { lastLines } from "./cleanup.ts";
import { eventually } from "./eventually.ts";
import { guardSharedServer, stopSharedServer } from "./home.ts";
import { httpClient } from "./http.ts";
import type { HttpClient } from "./http.ts";
import { natsServerBinary } from "./nats-binary.ts";
import { sidecarCommand } from "./paths.ts";
import { freePort } from "./ports.ts";
import { startProcess } from "./process.ts";
import type { RunningProcess } from "./process.ts";
import { tempDir } from "./temp-dir.ts";
import type { TempDir } from "./temp-dir.ts";

export type SidecarOptions = {
  readonly appId: string;
  readonly appPort?: number;
  /** http (default), grpc, ... as `--app-protocol`. */
  readonly appProtocol?: string;
  /**
   * The NATS server to use (or a proxy before it). `find` gives no address: the sidecar finds or starts a server by
   * itself, as a user's would; give several the `home` of one `tempHome()` to let them share it.
   */
  readonly nats: { readonly url: string } | { url(scheme: string): string } | "find";
  /** Resource files by name, e.g. `{"store.yaml": "apiVersion: ..."}`. */
  readonly resources?: Readonly<Record<string, string>>;
  /** Text of a Configuration resource, given as `--config`. */
  readonly config?: string;
  /** Program to run instead of the source or WEFT_TEST_BIN, e.g. the built executable. */
  readonly command?: readonly [string, ...string[]];
  /** More command-line arguments; one of the kit's own is left out when it is given here. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The environment is exactly `env`: no PATH, no HOME, no WEFT_HOME. */
  readonly bareEnv?: boolean;
  /** Folder used as WEFT_HOME and HOME; a temporary one when not given. */
  readonly home?: string;
  /** Until when `startSidecar` waits: healthz (`ready`, default), healthz/outbound, or not at all. */
  readonly wait?: "ready" | "outbound" | "none";
  /** Longest wait for readiness, ms; 30,000 when not given. */
  readonly readyTimeoutMs?: number;
};

const READY_TIMEOUT_MS = 30_000;
const HEALTH_PATH = { ready: "/v1.0/healthz", outbound: "/v1.0/healthz/outbound" } as const;

type Ports = { readonly http: number; readonly grpc: number; readonly metrics: number };

/** Starts a sidecar. Rejects with its log when it ends early or does not get ready. */
export async function startSidecar(options: SidecarOptions): Promise<Sidecar> {
  const folder = tempDir(options.appId.replace(/[^\w-]/g, "_") || "sidecar");
  await writeFiles(options, folder);
  const ports = { http: await freePort(), grpc: await freePort(), metrics: await freePort() };
  const sidecar = new Sidecar(options, folder, ports);
  try {
    await sidecar.start();
  } catch (error) {
    await sidecar[Symbol.asyncDispose]();
    throw error;
  }
  return sidecar;
}

/** A sidecar that `startSidecar` made. */
export class Sidecar implements AsyncDisposable {
  readonly appId: string;
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly metricsPort: number;
  /** `http://127.0.0.1:port`. */
  readonly httpUrl: string;
  /** WEFT_HOME of the sidecar. */
  readonly home: string;
  /** Folder of the resource files, which may be changed while it runs. */
  readonly resourcesPath: string;
  readonly http: HttpClient["http"];
  readonly get: HttpClient["get"];
  readonly post: HttpClient["post"];
  readonly #options: SidecarOptions;
  readonly #folder: TempDir;
  readonly #client: HttpClient;
  #running: RunningProcess | undefined;

  constructor(options: SidecarOptions, folder: TempDir, ports: Ports) {
    this.#options = options;
    this.#folder = folder;
    this.appId = options.appId;
    this.httpPort = ports.http;
    this.grpcPort = ports.grpc;
    this.metricsPort = ports.metrics;
    this.httpUrl = `http://127.0.0.1:${ports.http}`;
    this.home = options.home ?? folder.join("home");
    this.resourcesPath = folder.join("resources");
    this.#client = httpClient(this.httpUrl);
    this.http = this.#client.http;
    this.get = this.#client.get;
    this.post = this.#client.post;
  }

  /** Starts the process and waits as the options say. For `restart` after an end use that. */
  async start(): Promise<void> {
    const { nats, bareEnv = false, wait = "ready" } = this.#options;
    const own: Record<string, string> = bareEnv ? {} : { WEFT_HOME: this.home, HOME: this.home };
    // Else every new home would fetch a nats-server of its own.
    if (nats === "find" && !bareEnv) {
      own["WEFT_NATS_SERVER"] = await natsServerBinary();
      // Never a server of the user's on the usual port.
      own["WEFT_NATS_PORT"] = String(await freePort());
    }
    const [command, ...first] = this.#options.command ?? sidecarCommand();
    this.#running = await startProcess({
      name: `sidecar ${this.appId}`,
      command,
      args: [...first, ...this.#arguments()],
      env: { ...own, ...this.#options.env },
      bareEnv,
      cwd: this.#folder.path,
    });
    if (wait !== "none") await this.ready(wait);
    if (nats === "find") await guardSharedServer(this.home);
  }

  /** Starts it again with the same ports, home and resources; ends it first (SIGTERM) when it runs. */
  async restart(): Promise<void> {
    if (this.running()) await this.stop();
    await this.#process()[Symbol.asyncDispose]();
    await this.start();
  }

  /** Resolves when healthz (or healthz/outbound) says 204. Rejects with the log when it does not in time. */
  async ready(what: "ready" | "outbound" = "ready", timeoutMs?: number): Promise<void> {
    const running = this.#process();
    const attempt = async (): Promise<boolean> => {
      if (!running.running()) return true;
      const answer = await this.http(HEALTH_PATH[what], { timeoutMs: 2_000 });
      if (answer.status !== 204) throw new Error(`${HEALTH_PATH[what]} says ${answer.status} ${answer.text}`);
      return true;
    };
    const limitMs = timeoutMs ?? this.#options.readyTimeoutMs ?? READY_TIMEOUT_MS;
    try {
      await eventually(attempt, { timeoutMs: limitMs, everyMs: 15 });
    } catch (cause) {
      throw new Error(`${running.name} did not get ${what}: ${(cause as Error).message}\n${tail(running)}`, {
        cause,
      });
    }
    if (running.running()) return;
    throw new Error(`${running.name} ended with code ${await running.exited} at its start\n${tail(running)}`);
  }

  /** `127.0.0.1:port`. */
  get grpcAddress(): string {
    return `127.0.0.1:${this.grpcPort}`;
  }

  get pid(): number {
    return this.#process().pid;
  }

  /** Exit code of the process that runs now, or ran last. */
  get exited(): Promise<number> {
    return this.#process().exited;
  }

  running(): boolean {
    return this.#process().running();
  }

  /** Output of the process that runs now. */
  logs(): string {
    return this.#process().logs();
  }

  /** Waits for a line of its output. */
  logged(pattern: RegExp, timeoutMs = 10_000): Promise<RegExpMatchArray> {
    const attempt = (): RegExpMatchArray => {
      const found = this.logs().match(pattern);
      if (found === null)
        throw new Error(`no line of ${this.appId} matches ${pattern}\n${tail(this.#process())}`);
      return found;
    };
    return eventually(attempt, { timeoutMs });
  }

  /** Waits until the sidecar lists a subscription of this topic, i.e. has asked its app. */
  async subscribed(topic: string, timeoutMs = 10_000): Promise<void> {
    const attempt = async (): Promise<void> => {
      const metadata = (await this.get("/v1.0/metadata")).json<{ subscriptions?: { topic: string }[] }>();
      const topics = (metadata.subscriptions ?? []).map((it) => it.topic);
      if (!topics.includes(topic))
        throw new Error(`${this.appId} has subscribed to [${topics.join()}], not ${topic}`);
    };
    await eventually(attempt, { timeoutMs });
  }

  /** Sends a signal (SIGKILL) and waits for the end. Resolves with the exit code. */
  kill(signal?: NodeJS.Signals): Promise<number> {
    return this.#process().kill(signal);
  }

  /** Ends it in order (SIGTERM). Resolves with the exit code; rejects when it still runs after `timeoutMs`. */
  stop(timeoutMs?: number): Promise<number> {
    return this.#process().stop(timeoutMs);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process().signal(signal);
  }

  /** Freezes it (SIGSTOP); resolves when it stands still. */
  pause(): Promise<void> {
    return this.#process().pause();
  }

  resume(): void {
    this.#process().resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]();
    await this.#client[Symbol.asyncDispose]();
    const own = this.#options.nats === "find" && this.#options.home === undefined;
    if (own) await stopSharedServer(this.home);
    await this.#folder[Symbol.asyncDispose]();
  }

  #process(): RunningProcess {
    if (this.#running === undefined) throw new Error("the sidecar has not been started");
    return this.#running;
  }

  #arguments(): string[] {
    const { appPort, appProtocol, nats, config, flags = [] } = this.#options;
    const wanted: readonly (readonly [string, string | number | undefined])[] = [
      ["app-id", this.appId],
      ["app-port", appPort],
      ["app-protocol", appProtocol],
      ["dapr-http-port", this.httpPort],
      ["dapr-grpc-port", this.grpcPort],
      ["metrics-port", this.metricsPort],
      ["dapr-listen-addresses", "127.0.0.1"],
      ["metrics-listen-address", "127.0.0.1"],
      ["resources-path", this.#options.resources === undefined ? undefined : this.resourcesPath],
      ["config", config === undefined ? undefined : this.#folder.join("config.yaml")],
      ["nats-url", natsUrl(nats)],
    ];
    const given = new Set(flags.map((flag) => flag.replace(/^--?/, "").replace(/=.*$/s, "")));
    const own = wanted.filter(([name, value]) => value !== undefined && !given.has(name));
    return [...own.map(([name, value]) => `--${name}=${value}`), ...flags];
  }
}

function natsUrl(nats: SidecarOptions["nats"]): string | undefined {
  if (nats === "find") return undefined;
  return typeof nats.url === "function" ? nats.url("nats") : nats.url;
}

async function writeFiles(options: SidecarOptions, folder: TempDir): Promise<void> {
  await mkdir(folder.join("home"));
  await mkdir(folder.join("resources"));
  for (const [name, text] of Object.entries(options.resources ?? {})) {
    await writeFile(folder.join("resources", name), text);
  }
  if (options.config !== undefined) await writeFile(folder.join("config.yaml"), options.config);
}

function tail(running: RunningProcess): string {
  return lastLines(running.logs(), 40);
}
