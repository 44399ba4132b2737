/**
 * `--enable-profiling`: CPU profiles and heap snapshots over HTTP, under the paths that Go programs use, in the formats
 * of Chrome's developer tools, and what is open at the moment. The inspector is loaded with the first profile.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Clock } from "../../mesh/index.ts";

const defaultSeconds = 30;
/** Longest CPU profile, s: samples are kept in memory. */
const maxSeconds = 300;

const page = `<!doctype html>
<title>Weft profiling</title>
<h1>Weft profiling</h1>
<ul>
<li><a href="/debug/pprof/profile?seconds=${defaultSeconds}">/debug/pprof/profile?seconds=${defaultSeconds}</a>:
CPU profile of that many seconds (1 to ${maxSeconds}), a .cpuprofile file</li>
<li><a href="/debug/pprof/heap">/debug/pprof/heap</a>: heap snapshot,
a .heapsnapshot file; the sidecar stands still meanwhile</li>
<li><a href="/debug/pprof/counts">/debug/pprof/counts</a>: calls, streams, handles and memory now, after a garbage
collection</li>
</ul>
<p>Open the files in Chrome's developer tools or an editor that knows them.</p>
`;

/** What is open in the parts of the sidecar, by their names. */
export type Counts = () => Readonly<Record<string, unknown>>;

/** Listens on all addresses. Rejects at once when the port is taken, with the fix in the message. */
export async function createProfilingServer(
  where: { readonly addresses: readonly string[]; readonly port: number },
  clock: Clock,
  counts: Counts,
): Promise<{ close(): Promise<void> }> {
  const profiler = new Profiler(clock, counts);
  const servers: Server[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(
      servers.map((server) => {
        const closed = new Promise<void>((resolve) => server.close(() => resolve()));
        server.closeAllConnections();
        return closed;
      }),
    );
  };
  try {
    for (const address of where.addresses) {
      const server = createServer((request, response) => void profiler.answer(request, response));
      await listen(server, address, where.port);
      servers.push(server);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { close };
}

function listen(server: Server, address: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      reject(
        new Error(`profiling: ${error.message}; choose another --profile-port or --enable-profiling=false`),
      );
    });
    server.listen({ port, ...(address === "" ? {} : { host: address }) }, resolve);
  });
}

class Profiler {
  readonly #clock: Clock;
  readonly #counts: Counts;
  #busy = false;

  constructor(clock: Clock, counts: Counts) {
    this.#clock = clock;
    this.#counts = counts;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://localhost");
    const path = url.pathname.replace(/\/$/, "");
    if (path === "" || path === "/debug/pprof") return send(response, 200, "text/html; charset=utf-8", page);
    if (path === "/debug/pprof/counts") {
      const counts = { ...this.#counts(), ...(await processCounts()) };
      return send(response, 200, "application/json", JSON.stringify(counts));
    }
    const profile = path === "/debug/pprof/profile";
    if (!profile && path !== "/debug/pprof/heap") return text(response, 404, "404 page not found\n");
    const seconds = Number(url.searchParams.get("seconds") ?? defaultSeconds);
    if (!(seconds > 0 && seconds <= maxSeconds)) {
      return text(response, 400, `seconds must be a number above 0 and up to ${maxSeconds}\n`);
    }
    if (this.#busy) return text(response, 409, "another profile is being taken; try again when it is done\n");
    this.#busy = true;
    try {
      await (profile ? this.#cpu(response, seconds * 1000) : heap(response));
    } catch (error) {
      if (response.headersSent) response.destroy();
      else text(response, 500, `${error instanceof Error ? error.message : String(error)}\n`);
    } finally {
      this.#busy = false;
    }
  }

  async #cpu(response: ServerResponse, durationMs: number): Promise<void> {
    const { Session } = await import("node:inspector/promises");
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const session = new Session();
    session.connect();
    try {
      await session.post("Profiler.enable");
      await session.post("Profiler.start");
      await this.#clock.sleep(durationMs, gone.signal).catch(() => {});
      const { profile } = await session.post("Profiler.stop");
      send(response, 200, "application/json", JSON.stringify(profile), "cpu.cpuprofile");
    } finally {
      session.disconnect();
    }
  }
}

/** Open handles by kind, and memory in bytes once garbage is gone. */
async function processCounts(): Promise<Record<string, unknown>> {
  const [{ setFlagsFromString }, { runInNewContext }] = await Promise.all([
    import("node:v8"),
    import("node:vm"),
  ]);
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  const handles: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) handles[kind] = (handles[kind] ?? 0) + 1;
  return { handles, memory: process.memoryUsage() };
}

async function heap(response: ServerResponse): Promise<void> {
  const [{ getHeapSnapshot }, { pipeline }] = await Promise.all([
    import("node:v8"),
    import("node:stream/promises"),
  ]);
  response.writeHead(200, {
    "Content-Type": "application/json",
    "Content-Disposition": 'attachment; filename="heap.heapsnapshot"',
  });
  await pipeline(getHeapSnapshot(), response);
}

function text(response: ServerResponse, status: number, body: string): void {
  send(response, status, "text/plain; charset=utf-8", body);
}

function send(response: ServerResponse, status: number, type: string, body: string, file?: string): void {
  const disposition = file === undefined ? {} : { "Content-Disposition": `attachment; filename="${file}"` };
  response.writeHead(status, { "Content-Type": type, ...disposition }).end(body);
}
