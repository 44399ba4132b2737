// Generates proto/gen from the .proto files in this folder with buf and protoc-gen-es, both taken from
// node_modules, without network. `node proto/generate.ts` rewrites proto/gen; with `--check` it changes
// nothing and fails when proto/gen is not what the .proto files give.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

const protoDir = import.meta.dirname;
const modulesDir = join(protoDir, "..", "node_modules");
const committedDir = join(protoDir, "gen");
const runTimeoutMs = 60_000;

/** One way in which proto/gen differs from what the .proto files give; `path` is relative to proto/gen. */
export type StaleFile = { path: string; state: "changed" | "missing" | "left over" };

/**
 * Generates into `outDir`. Throws with the compiler's own message (file, line, column) when a .proto file
 * does not compile, or with the fix when the tools are not installed.
 */
export function generateInto(outDir: string): void {
  const buf = join(modulesDir, "@bufbuild", "buf", "bin", "buf");
  const plugin = join(modulesDir, "@bufbuild", "protoc-gen-es", "bin", "protoc-gen-es");
  for (const tool of [buf, plugin]) {
    if (!existsSync(tool)) throw new Error(`${tool} is not there: run npm install`);
  }
  const template = {
    version: "v2",
    plugins: [
      {
        local: [process.execPath, plugin],
        out: outDir,
        opt: ["target=ts", "import_extension=ts", "erasable_syntax=true"],
      },
    ],
  };
  const args = [buf, "generate", protoDir, "--template", JSON.stringify(template)];
  const run = spawnSync(process.execPath, args, { encoding: "utf8", timeout: runTimeoutMs });
  if (run.status !== 0) {
    throw new Error(`buf generate failed: ${run.error?.message ?? run.stderr.trim()}`);
  }
}

/** Compares proto/gen with a fresh generation. An empty list means up to date. */
export function findStale(): StaleFile[] {
  return inScratchDir((freshDir) => {
    generateInto(freshDir);
    const fresh = listFiles(freshDir);
    const committed = new Set(existsSync(committedDir) ? listFiles(committedDir) : []);
    const stale: StaleFile[] = [];
    for (const path of fresh) {
      if (!committed.delete(path)) stale.push({ path, state: "missing" });
      else if (!sameBytes(join(freshDir, path), join(committedDir, path))) {
        stale.push({ path, state: "changed" });
      }
    }
    for (const path of committed) stale.push({ path, state: "left over" });
    return stale;
  });
}

/** Replaces proto/gen. Leaves it untouched when generation fails. */
function regenerate(): void {
  inScratchDir((freshDir) => {
    generateInto(freshDir);
    rmSync(committedDir, { recursive: true, force: true });
    cpSync(freshDir, committedDir, { recursive: true });
  });
}

function inScratchDir<T>(work: (dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), "weft-proto-"));
  try {
    return work(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function listFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)))
    .sort();
}

function sameBytes(a: string, b: string): boolean {
  return readFileSync(a).equals(readFileSync(b));
}

function main(args: string[]): number {
  if (args.length === 0) {
    regenerate();
    process.stdout.write(`proto/gen: ${listFiles(committedDir).length} files written\n`);
    return 0;
  }
  if (args.length !== 1 || args[0] !== "--check") {
    process.stderr.write("usage: node proto/generate.ts [--check]\n");
    return 2;
  }
  const stale = findStale();
  for (const { path, state } of stale) process.stderr.write(`proto/gen/${path}: ${state}\n`);
  if (stale.length > 0) process.stderr.write("proto/gen is stale: run node proto/generate.ts\n");
  return stale.length > 0 ? 1 : 0;
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2));
