/** The configuration file of the shared nats-server, and how much of the disk and memory it may take. */
import { readdirSync, statfsSync, statSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";
import { FindNatsError } from "./errors.ts";
import type { Home } from "./home.ts";
import { isAtLeast } from "./version.ts";

const mebibyte = 1024 * 1024;
const maxStoreBytes = 20 * 1024 * mebibyte;
const minStoreBytes = 64 * mebibyte;
const maxMemoryBytes = 1024 * mebibyte;
const maxFilesCounted = 20_000;

export type StorageLimits = { readonly fileBytes: number; readonly memoryBytes: number };

export type ConfigOptions = {
  readonly home: Home;
  readonly port: number;
  /** Version of the binary that will read the file: some settings are errors for an older one. */
  readonly version: string;
  readonly limits: StorageLimits;
};

/** The text of the file. Throws FindNatsError when the home's path cannot be written in it. */
export function writeConfig({ home, port, version, limits }: ConfigOptions): string {
  // 2.15 allows 1,000 consumers per stream by default; every subscription and every watched key is one.
  const consumers = isAtLeast(version, "2.15.0") ? "\n  limits { default_max_consumers: 10000 }" : "";
  return `# Written by Weft at each start of its shared server; changes made here are lost.
# To use a server of your own, run it and set WEFT_NATS_URL.
server_name: ${quote(home.serverName)}
host: "127.0.0.1"
port: ${port}

log_file: ${quote(home.logFile)}
logfile_size_limit: 8MB
logfile_max_num: 3

max_payload: 8MB
# A client that does not read for so long is cut off; Weft's own reconnect at once.
write_deadline: "10s"

jetstream {
  store_dir: ${quote(home.dataFolder)}
  # An acknowledged write has reached the operating system: kill -9 of this server or of everything else loses
  # nothing. A power cut or a crash of the whole machine may lose the last 5 seconds. "always" closes that window
  # and costs up to ten times the speed; choose it for a server of your own that has no replicas.
  sync_interval: "5s"
  # Below what the disk has: a server on a full disk must be restarted, one at its own limit only refuses writes.
  max_file_store: ${limits.fileBytes}
  max_memory_store: ${limits.memoryBytes}${consumers}
}
`;
}

/** The port in a file of `writeConfig`. */
export function readConfigPort(text: string): number | undefined {
  const digits = /^port: (\d{1,5})$/m.exec(text)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/**
 * Half of what the disk could give (what is free and what the data already takes), 64 MiB to 20 GiB; an
 * eighth of the memory, at most 1 GiB.
 */
export function storageLimits(dataFolder: string): StorageLimits {
  const disk = statfsSync(dataFolder);
  return limitsFor({
    freeBytes: disk.bavail * disk.bsize,
    usedBytes: folderBytes(dataFolder),
    memoryBytes: totalmem(),
  });
}

/** The sum behind `storageLimits`. All in bytes. */
export function limitsFor(has: { freeBytes: number; usedBytes: number; memoryBytes: number }): StorageLimits {
  const half = Math.floor((has.freeBytes + has.usedBytes) / 2);
  return {
    fileBytes: Math.max(minStoreBytes, Math.min(half, maxStoreBytes)),
    memoryBytes: Math.max(minStoreBytes, Math.min(Math.floor(has.memoryBytes / 8), maxMemoryBytes)),
  };
}

function folderBytes(folder: string): number {
  let bytes = 0;
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).slice(0, maxFilesCounted);
  for (const entry of entries) {
    // A file may go away while we count.
    if (entry.isFile())
      bytes += statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

function quote(text: string): string {
  if ([...text].some((character) => character < " " || character === "\u007f")) {
    const shown = JSON.stringify(text);
    throw new FindNatsError(`The folder name ${shown} holds control characters. Set WEFT_HOME to another.`);
  }
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
