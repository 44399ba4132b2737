/**
 * A real nats-server with JetStream on a free loopback port, with data in a folder of its own. It can be killed,
 * frozen and started again on the same port with the same data.
 */
import { writeFile } from "node:fs/promises";
import { connect as connectSocket } from "node:net";
import { connect as connectNats } from "@nats-io/transport-node";
import type { ConnectionOptions, NatsConnection } from "@nats-io/transport-node";
import { eventually } from "./eventually.ts";
import { natsServerBinary } from "./nats-binary.ts";
import { freePort } from "./ports.ts";
import { startProcess } from "./process.ts";
import type { RunningProcess } from "./process.ts";
import { tempDir } from "./temp-dir.ts";

export type NatsOptions = {
  /** Largest payload, bytes; the server's default (1 MiB) when not given. */
  readonly maxPayload?: number;
  /** Bytes JetStream may store on disk; 1 GiB when not given. */
  readonly maxFileStore?: number;
  /** A port to use instead of a free one. */
  readonly port?: number;
  /** More lines for the configuration file. */
  readonly config?: string;
};

export type Nats = AsyncDisposable & {
  readonly port: number;
  /** `nats://127.0.0.1:port`. */
  readonly url: string;
  /** Process id of the server that runs now. */
  readonly pid: number;
  running(): boolean;
  logs(): string;
  /** Ends it at once (SIGKILL). */
  kill(signal?: NodeJS.Signals): Promise<number>;
  /** Ends it in order (SIGTERM). Resolves with the exit code. */
  stop(): Promise<number>;
  /** Freezes it (SIGSTOP); resolves when it stands still. */
  pause(): Promise<void>;
  resume(): void;
  /** Starts it again, ending it first when it runs: same port, same data. Resolves when it takes clients. */
  restart(): Promise<void>;
  /** A plain client; closed with the server object. */
  connect(options?: ConnectionOptions): Promise<NatsConnection>;
};

const READY_TIMEOUT_MS = 30_000;

/** Starts nats-server. Resolves when it takes clients and JetStream is up. */
export async function startNats(options: NatsOptions = {}): Promise<Nats> {
  const binary = await natsServerBinary();
  const port = options.port ?? (await freePort());
  const folder = tempDir("nats");
  const config = folder.join("nats-server.conf");
  await writeFile(config, configText(port, folder.join("data"), options));
  const launch = async (): Promise<RunningProcess> => {
    const started = await startProcess({ name: `nats:${port}`, command: binary, args: ["-c", config] });
    await untilReady(started, port);
    return started;
  };
  let server = await launch();
  const clients = new Set<NatsConnection>();
  return {
    port,
    url: `nats://127.0.0.1:${port}`,
    get pid() {
      return server.pid;
    },
    running: () => server.running(),
    logs: () => server.logs(),
    kill: (signal) => server.kill(signal),
    stop: () => server.stop(),
    pause: () => server.pause(),
    resume: () => server.resume(),
    async restart() {
      await server[Symbol.asyncDispose]();
      server = await launch();
    },
    async connect(clientOptions) {
      const client = await connectNats({ servers: `127.0.0.1:${port}`, ...clientOptions });
      clients.add(client);
      return client;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client.close();
      await server[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

function configText(port: number, dataFolder: string, options: NatsOptions): string {
  const lines = [
    "host: 127.0.0.1",
    `port: ${port}`,
    `server_name: "test-${port}"`,
    `jetstream { store_dir: ${JSON.stringify(dataFolder)}, max_file_store: ${options.maxFileStore ?? 2 ** 30} }`,
  ];
  if (options.maxPayload !== undefined) lines.push(`max_payload: ${options.maxPayload}`);
  if (options.config !== undefined) lines.push(options.config);
  return `${lines.join("\n")}\n`;
}

async function untilReady(server: RunningProcess, port: number): Promise<void> {
  const attempt = async (): Promise<boolean> => {
    if (!server.running()) return true;
    const info = await readInfo(port);
    return info.includes('"jetstream":true');
  };
  await eventually(attempt, { timeoutMs: READY_TIMEOUT_MS, what: `nats-server on port ${port}` });
  if (!server.running()) throw new Error(`nats-server ended at its start\n${server.logs()}`);
}

/** The first line a NATS server sends to a new client. */
function readInfo(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket({ port, host: "127.0.0.1" });
    let text = "";
    socket.setTimeout(2_000, () => socket.destroy(new Error("no INFO line within 2 s")));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the connection ended before the INFO line")));
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (!text.includes("\r\n")) return;
      resolve(text);
      socket.destroy();
    });
  });
}
