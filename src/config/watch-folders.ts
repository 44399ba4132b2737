/**
 * Tells when something changes in folders: by the system's file events, a moment after the last one, and once in an
 * interval in case events got lost. A folder that is removed and made again is watched again.
 */
import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";
import type { Clock, Timer } from "../../mesh/index.ts";

/** Quiet time after an event before a change is told, ms: editors and tools write a file in several steps. */
const quietMs = 100;
/** A folder that never gets quiet is told this late, ms. */
const longestQuietMs = 2_000;

export type WatchedFolder = {
  readonly path: string;
  /** Whether an entry of that name is worth a look. */
  readonly matters: (name: string) => boolean;
};

export type WatchFoldersInit = {
  readonly folders: readonly WatchedFolder[];
  /** At least once in this time, ms. */
  readonly intervalMs: number;
  readonly clock: Clock;
  /** Never called twice at once: a change meanwhile is told when its promise has resolved. Never rejects. */
  readonly changed: () => Promise<void>;
};

/** Watches until `close`; a call of `changed` may still run then. */
export class FolderWatch {
  readonly #init: WatchFoldersInit;
  readonly #watched = new Map<WatchedFolder, { readonly watcher: FSWatcher; readonly inode: number }>();
  readonly #interval: Timer;
  #quiet: Timer | undefined;
  #firstEventMs: number | undefined;
  #telling: Promise<void> | undefined;
  #again = false;
  #closed = false;

  constructor(init: WatchFoldersInit) {
    this.#init = init;
    this.#interval = init.clock.setInterval(() => void this.#tell(), init.intervalMs);
  }

  /** Resolves when every folder that is there is watched; what changes from then on is told. */
  async start(): Promise<void> {
    for (const folder of this.#init.folders) await this.#watch(folder);
  }

  close(): void {
    this.#closed = true;
    this.#interval.cancel();
    this.#quiet?.cancel();
    for (const { watcher } of this.#watched.values()) watcher.close();
    this.#watched.clear();
  }

  /** A watch sticks to the folder it was made for, also when another one takes its place. */
  async #watch(folder: WatchedFolder): Promise<void> {
    const inode = await inodeOf(folder.path);
    const watched = this.#watched.get(folder);
    if (watched !== undefined && watched.inode === inode) return;
    watched?.watcher.close();
    this.#watched.delete(folder);
    if (inode === undefined || this.#closed) return;
    try {
      const watcher = watch(folder.path, { persistent: false }, (_, name) => {
        if (name === null || folder.matters(name)) this.#soon();
      });
      watcher.on("error", () => this.#forget(folder, watcher));
      this.#watched.set(folder, { watcher, inode });
    } catch {
      // The interval remains, and tries again.
    }
  }

  #forget(folder: WatchedFolder, watcher: FSWatcher): void {
    watcher.close();
    if (this.#watched.get(folder)?.watcher === watcher) this.#watched.delete(folder);
    this.#soon();
  }

  #soon(): void {
    if (this.#closed) return;
    const nowMs = this.#init.clock.monotonicMs();
    this.#firstEventMs ??= nowMs;
    const leftMs = Math.max(0, this.#firstEventMs + longestQuietMs - nowMs);
    this.#quiet?.cancel();
    this.#quiet = this.#init.clock.setTimeout(() => void this.#tell(), Math.min(quietMs, leftMs));
  }

  async #tell(): Promise<void> {
    this.#firstEventMs = undefined;
    if (this.#telling !== undefined) {
      this.#again = true;
      return;
    }
    this.#telling = this.#tellOnce();
    await this.#telling;
    this.#telling = undefined;
    if (!this.#again || this.#closed) return;
    this.#again = false;
    void this.#tell();
  }

  async #tellOnce(): Promise<void> {
    if (this.#closed) return;
    await this.start();
    await this.#init.changed();
  }
}

async function inodeOf(folder: string): Promise<number | undefined> {
  try {
    return (await stat(folder)).ino;
  } catch {
    return undefined;
  }
}
