/**
 * A bank per state store: clients move money between accounts by transactions with ETags, while the store's server is
 * killed and comes back. The total never changes, neither at the end nor in any bulk get of all accounts where the
 * store reads them at one moment; and no acknowledged transfer is missing.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Sidecar, eventually, startNats, startSidecar, tempDir } from "../kit/index.ts";
import { seededRandom } from "./random.ts";
import { startStores, type Killable } from "./stores.ts";

export type TransfersOptions = {
  /** Transfers of each store that are acknowledged. */
  readonly transfers: number;
  readonly seed: number;
  readonly timeoutMs: number;
  /** Names of the stores; all that have transactions when not given. */
  readonly only?: readonly string[];
  readonly say?: (line: string) => void;
};

export type TransfersResult = {
  readonly store: string;
  readonly acknowledged: number;
  /** Transactions whose answer was lost or an error: each may or may not have been made. */
  readonly doubts: number;
  readonly conflicts: number;
  /** Bulk gets of all accounts meanwhile. */
  readonly reads: number;
  /** What a bulk get said when it was not the total; the first few. */
  readonly wrongTotals: readonly string[];
  /** Transfers that the accounts tell of, when these are not between `acknowledged` and that and `doubts`. */
  readonly lost: readonly string[];
  readonly kills: number;
};

const clients = 8;
const accounts = Array.from({ length: 16 }, (_, at) => `account-${at}`);
const opening = 1_000;
const total = accounts.length * opening;
const kills = 5;
const shown = 5;

/** Stores with transactions; those that read many keys at one moment. MongoDB has transactions in replica sets only. */
const transactional = ["nats", "sqlite", "redis", "pg1", "pg2", "mysql", "etcd"];
const snapshots = new Set(["nats", "sqlite", "pg1", "pg2", "mysql", "etcd"]);

type Account = { readonly balance: number; readonly moves: number };
type Found = { readonly key: string; readonly value: Account; readonly etag: string };
type Bank = {
  readonly store: string;
  readonly sidecar: Sidecar;
  readonly random: () => number;
  readonly late: AbortSignal;
  acknowledged: number;
  doubts: number;
  conflicts: number;
  reads: number;
  readonly wrongTotals: string[];
};

/** One store after the other. Rejects when time runs out. */
export async function transfers(options: TransfersOptions): Promise<TransfersResult[]> {
  const { only = transactional, seed, timeoutMs, say } = options;
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const folder = stack.use(tempDir("sqlite"));
  const parts = { nats, sqliteFile: folder.join("state.db"), only };
  const { stores, resources } = await startStores(stack, parts);
  const sidecar = stack.use(
    await startSidecar({
      appId: "bank",
      nats,
      resources: { "stores.yaml": resources },
      readyTimeoutMs: 60_000,
    }),
  );
  const late = AbortSignal.timeout(timeoutMs);
  const random = seededRandom(seed);
  const results: TransfersResult[] = [];
  for (const { store, server } of stores) {
    const counts = { acknowledged: 0, doubts: 0, conflicts: 0, reads: 0, wrongTotals: [] };
    const bank: Bank = { store, sidecar, random, late, ...counts };
    results.push(await run(bank, server, options.transfers));
    say?.(`${store}: ${bank.acknowledged} transfers, ${bank.reads} bulk gets`);
  }
  return results;
}

async function run(bank: Bank, server: Killable | undefined, wanted: number): Promise<TransfersResult> {
  await openAccounts(bank);
  const over = (): boolean => {
    bank.late.throwIfAborted();
    return bank.acknowledged >= wanted;
  };
  const work = Array.from({ length: clients }, () => transferOn(bank, over));
  if (snapshots.has(bank.store)) work.push(readOn(bank, over), readOn(bank, over));
  let killed = 0;
  const killing = async (): Promise<void> => {
    for (; server !== undefined && killed < kills; killed++) {
      while (bank.acknowledged < ((killed + bank.random()) / kills) * wanted * 0.95)
        await sleep(5, undefined, { signal: bank.late });
      await server.kill();
      await sleep(bank.random() * 300);
      await server.restart();
    }
  };
  await Promise.all([...work, killing()]);
  const found = await eventually(() => readAll(bank), { timeoutMs: 60_000 });
  check(bank, found);
  const applied = found.reduce((sum, { value }) => sum + value.moves, 0) / 2;
  const { store, acknowledged, doubts, conflicts, reads, wrongTotals } = bank;
  const believable = applied >= acknowledged && applied <= acknowledged + doubts;
  const lost = believable ? [] : [`${applied} transfers were made, ${acknowledged} acknowledged`];
  return { store, acknowledged, doubts, conflicts, reads, wrongTotals, lost, kills: killed };
}

const path = ({ store }: Bank): string => `/v1.0/state/${store}`;

async function openAccounts(bank: Bank): Promise<void> {
  const value: Account = { balance: opening, moves: 0 };
  const items = accounts.map((key) => ({ key, value }));
  await eventually(
    async () => {
      const answer = await bank.sidecar.post(path(bank), items);
      if (answer.status !== 204) throw new Error(`${bank.store}: ${answer.status} ${answer.text}`);
    },
    { timeoutMs: 60_000 },
  );
}

async function transferOn(bank: Bank, over: () => boolean): Promise<void> {
  while (!over()) {
    const from = Math.floor(bank.random() * accounts.length);
    const step = 1 + Math.floor(bank.random() * (accounts.length - 1));
    const keys = [accounts[from]!, accounts[(from + step) % accounts.length]!];
    const pair = await read(bank, keys).catch(() => undefined);
    if (pair === undefined) {
      await sleep(50);
      continue;
    }
    const amount = Math.floor(bank.random() * 100);
    const operations = pair.map(({ key, value, etag }, at) => {
      const balance = value.balance + (at === 0 ? -amount : amount);
      const request = { key, value: { balance, moves: value.moves + 1 }, etag };
      return { operation: "upsert", request };
    });
    const answer = await bank.sidecar
      .post(`${path(bank)}/transaction`, { operations })
      .catch(() => undefined);
    if (answer?.status === 204) bank.acknowledged++;
    else if (/etag|conflict/i.test(answer?.text ?? "")) bank.conflicts++;
    else {
      bank.doubts++;
      await sleep(50);
    }
  }
}

async function readOn(bank: Bank, over: () => boolean): Promise<void> {
  while (!over()) {
    const found = await readAll(bank).catch(() => undefined);
    if (found === undefined) await sleep(50);
    else check(bank, found);
  }
}

function check(bank: Bank, found: readonly Found[]): void {
  bank.reads++;
  const sum = found.reduce((all, { value }) => all + value.balance, 0);
  if (sum === total || bank.wrongTotals.length >= shown) return;
  bank.wrongTotals.push(`${sum} in place of ${total}: ${JSON.stringify(found)}`);
}

const readAll = (bank: Bank): Promise<Found[]> => read(bank, accounts);

/** Rejects when a key could not be read; one that is absent is an account without anything. */
async function read(bank: Bank, keys: readonly string[]): Promise<Found[]> {
  const answer = await bank.sidecar.post(`${path(bank)}/bulk`, { keys });
  if (answer.status !== 200) throw new Error(`${bank.store}: ${answer.status} ${answer.text}`);
  const items = answer.json<{ key: string; data?: Account; etag?: string; error?: string }[]>();
  return keys.map((key) => {
    const { data, etag = "", error } = items.find((item) => item.key === key) ?? {};
    if (error !== undefined) throw new Error(`${bank.store}: ${key}: ${error}`);
    return { key, value: data ?? { balance: 0, moves: 0 }, etag };
  });
}
