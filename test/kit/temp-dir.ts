/** Temporary folders that go with the test, or at the latest with the test process. */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { temporaryRoot } from "./cleanup.ts";

export type TempDir = AsyncDisposable & {
  readonly path: string;
  /** Path of something inside. */
  join(...parts: string[]): string;
};

/** A new empty folder; `name` makes it recognizable. */
export function tempDir(name = "dir"): TempDir {
  const path = mkdtempSync(join(temporaryRoot(), `${name}-`));
  return {
    path,
    join: (...parts) => join(path, ...parts),
    // Retries: what a killed process has started may still write in there.
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }),
  };
}
