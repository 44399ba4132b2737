/**
 * A stand-in for a sidecar: looks for NATS with the options in its first argument (JSON) and says each result
 * as one line of JSON. With `stay` it then watches the server like a sidecar does, and asks for it again once
 * it is gone.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { findBinary, findNats, openHome } from "../../../mesh/server/index.ts";
import { systemClock } from "../../../mesh/clock.ts";
import { waitLock } from "../../../mesh/server/lock.ts";

export type ChildOptions = {
  readonly home?: string;
  readonly binary?: string;
  readonly defaultPort: number;
  readonly stay?: boolean;
  /** Only get the binary, as if none was installed. */
  readonly fetch?: boolean;
};

const options = JSON.parse(process.argv[2] ?? "{}") as ChildOptions;
const common = { env: process.env, clock: systemClock, progress: (line: string) => say({ progress: line }) };

function say(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

async function fetchOnly(): Promise<void> {
  const home = openHome({ home: options.home, env: process.env });
  const lock = await waitLock(home.lockFile, "fetching", { clock: systemClock, timeoutMs: 120_000 });
  try {
    say({ binary: await findBinary({ ...common, home, folders: [] }) });
  } finally {
    lock.release();
  }
}

/** A connection, by whose end the end of the server shows. */
async function connected(url: string): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  await once(socket, "connect");
  return socket.resume().on("error", () => {});
}

async function main(): Promise<void> {
  if (options.fetch === true) return fetchOnly();
  const found = await findNats({ ...options, ...common });
  if (options.stay !== true) return say({ found });
  const socket = await connected(found.urls[0] ?? "");
  const gone = once(socket, "close");
  say({ found });
  await gone;
  say({ ensured: await found.ensure() });
}

main().catch((error: unknown) => {
  say({ error: error instanceof Error ? `${error.name}: ${error.message}` : String(error) });
  process.exitCode = 1;
});
