/**
 * Clients that increment one counter per state store by compare-and-set, while the store's server and the sidecar are
 * killed. A record tells how far each client has come, so a client whose answer was lost knows what became of it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Sidecar, eventually, startNats, startSidecar, tempDir } from "../kit/index.ts";
import { startStores, type StartedStore } from "./stores.ts";

export type LostUpdatesOptions = {
  readonly clients: number;
  readonly increments: number;
  /** Longest time for everything, ms. */
  readonly timeoutMs: number;
  readonly say?: (line: string) => void;
};

export type StoreResult = {
  readonly store: string;
  readonly sum: number;
  /** Answers that were lost or were errors, after which the client looked what had become of its write. */
  readonly doubts: number;
  readonly conflicts: number;
  readonly kills: number;
};

type Progress = { doubts: number; conflicts: number; done: number };

/** The sum of every store at the end; exact is `clients * increments`. Rejects when time runs out. */
export async function lostUpdates(options: LostUpdatesOptions): Promise<StoreResult[]> {
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const folder = stack.use(tempDir("sqlite"));
  const { stores, resources } = await startStores(stack, { nats, sqliteFile: folder.join("state.db") });
  const sidecar = stack.use(
    await startSidecar({
      appId: "soak",
      nats,
      resources: { "stores.yaml": resources },
      readyTimeoutMs: 60_000,
    }),
  );
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const progress = new Map(stores.map(({ store }) => [store, { doubts: 0, conflicts: 0, done: 0 }]));
  for (const { store } of stores) await create(sidecar, store, options.clients);
  const work = stores.flatMap(({ store }) =>
    Array.from({ length: options.clients }, (_, client) =>
      count(sidecar, store, client, options.increments, progress.get(store)!, deadline),
    ),
  );
  const finished = Promise.all(work);
  const total = stores.length * options.clients * options.increments;
  const kills = await killInTurn(stores, sidecar, finished, () => sumDone(progress) / total, options.say);
  await finished;
  const results: StoreResult[] = [];
  for (const { store } of stores) {
    const record = await eventually(() => read(sidecar, store), { timeoutMs: 30_000 });
    const { doubts, conflicts } = progress.get(store)!;
    const sum = record.by.reduce((a, b) => a + b, 0) === record.sum ? record.sum : Number.NaN;
    results.push({ store, sum, doubts, conflicts, kills: kills.get(store) ?? 0 });
  }
  return results;
}

function sumDone(progress: ReadonlyMap<string, Progress>): number {
  return [...progress.values()].reduce((sum, { done }) => sum + done, 0);
}

/** Each server once, and the sidecar after every second of them, spread over the work. */
async function killInTurn(
  stores: readonly StartedStore[],
  sidecar: Sidecar,
  finished: Promise<unknown>,
  share: () => number,
  say: ((line: string) => void) | undefined,
): Promise<Map<string, number>> {
  const kills = new Map<string, number>();
  const servers = [...new Set(stores.map(({ server }) => server))].filter((server) => server !== undefined);
  let over = false;
  void finished.then(
    () => (over = true),
    () => (over = true),
  );
  for (const [index, server] of servers.entries()) {
    const wanted = (index + 1) / (servers.length + 2);
    while (!over && share() < wanted) await sleep(20);
    if (over) break;
    await server.kill();
    await sleep(200);
    await server.restart();
    const names = stores.filter((candidate) => candidate.server === server).map(({ store }) => store);
    for (const name of names) kills.set(name, (kills.get(name) ?? 0) + 1);
    say?.(`${names.join(", ")}: server killed and back at ${Math.round(share() * 100)} %`);
    if (index % 2 === 0 || index === servers.length - 1) {
      await sidecar.kill("SIGKILL");
      await sidecar.restart();
      for (const { store } of stores) kills.set(store, (kills.get(store) ?? 0) + 1);
      say?.(`sidecar killed and back at ${Math.round(share() * 100)} %`);
    }
  }
  return kills;
}

type Found = { readonly sum: number; readonly by: number[]; readonly etag: string };

const path = (store: string): string => `/v1.0/state/${store}`;
const key = "counter";

async function create(sidecar: Sidecar, store: string, clients: number): Promise<void> {
  const value = { sum: 0, by: Array.from({ length: clients }, () => 0) };
  await eventually(
    async () => {
      const answer = await sidecar.post(path(store), [{ key, value }]);
      if (answer.status !== 204) throw new Error(`${store}: ${answer.status} ${answer.text}`);
    },
    { timeoutMs: 30_000 },
  );
}

async function read(sidecar: Sidecar, store: string): Promise<Found> {
  const answer = await sidecar.get(`${path(store)}/${key}`);
  if (answer.status !== 200) throw new Error(`${store}: ${answer.status} ${answer.text}`);
  return { ...answer.json<{ sum: number; by: number[] }>(), etag: answer.headers["etag"] as string };
}

async function count(
  sidecar: Sidecar,
  store: string,
  client: number,
  increments: number,
  progress: Progress,
  deadline: AbortSignal,
): Promise<void> {
  for (let own = 0; own < increments;) {
    deadline.throwIfAborted();
    const found = await read(sidecar, store).catch(() => undefined);
    if (found === undefined) {
      progress.doubts++;
      await sleep(50);
      continue;
    }
    const { sum, by, etag } = found;
    if (by[client]! > own + 1 || by[client]! < own)
      throw new Error(`${store}: client ${client} wrote ${own} and finds ${by[client]}`);
    if (by[client] === own + 1) {
      // A write whose answer was lost.
      own++;
      progress.done++;
      continue;
    }
    const value = { sum: sum + 1, by: by.map((n, index) => (index === client ? n + 1 : n)) };
    const saved = await sidecar.post(path(store), [{ key, value, etag }]).catch(() => undefined);
    if (saved?.status === 204) {
      own++;
      progress.done++;
    } else if (saved?.status === 409) {
      progress.conflicts++;
      // Else the same clients win for ever.
      await sleep(Math.random() * 5);
    } else progress.doubts++;
  }
}
