/** Finds a nats-server that is new enough: named by the user, installed, fetched before, else fetched now. */
import { existsSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import type { Clock } from "../clock.ts";
import { FindNatsError, reasonOf } from "./errors.ts";
import { askVersion, cachedBinary, fetchBinary } from "./fetch.ts";
import type { Home } from "./home.ts";
import { findProgram, searchPath } from "./process.ts";
import type { Release } from "./release.ts";
import { minimumVersion } from "./version.ts";

export type BinaryOptions = {
  readonly home: Home;
  readonly env: NodeJS.ProcessEnv;
  /** Path or program name; goes before WEFT_NATS_SERVER. When given, nothing else is tried. */
  readonly binary?: string | undefined;
  readonly progress: (line: string) => void;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** For tests: folders looked at after PATH, and where the release is. */
  readonly folders?: readonly string[];
  readonly release?: Release;
};

export type Binary = { readonly path: string; readonly version: string };

/**
 * Call with the home's lock held, since it may fetch. Throws FindNatsError naming all that was tried and the
 * fix.
 */
export async function findBinary(options: BinaryOptions): Promise<Binary> {
  const given = options.binary || options.env["WEFT_NATS_SERVER"];
  if (given) return checkGiven(given, options);
  const tried: string[] = [];
  for (const path of candidates(options)) {
    try {
      return { path, version: await askVersion(path, options) };
    } catch (error) {
      options.signal?.throwIfAborted();
      tried.push(`${path}: ${reasonOf(error)}`);
      options.progress(`not using ${path}: ${reasonOf(error)}`);
    }
  }
  if (tried.length === 0) tried.push("nats-server on the PATH and in the usual folders: not there");
  try {
    return await fetchBinary(options);
  } catch (error) {
    if (!(error instanceof FindNatsError)) throw error;
    tried.push(...error.tried);
  }
  throw new FindNatsError(
    `No nats-server >= ${minimumVersion} could be found or fetched. Install one, or name its program with ` +
      `WEFT_NATS_SERVER, or give a running server with --nats-url / WEFT_NATS_URL. Tried: ${tried.join("; ")}`,
    { tried },
  );
}

async function checkGiven(given: string, options: BinaryOptions): Promise<Binary> {
  const path = given.includes("/") ? resolve(given) : findProgram(given, searchPath(options.env));
  const fix = `WEFT_NATS_SERVER must name a nats-server >= ${minimumVersion}`;
  if (path === undefined) throw new FindNatsError(`${given} is not on the PATH; ${fix}.`, { tried: [given] });
  try {
    return { path, version: await askVersion(path, options) };
  } catch (error) {
    options.signal?.throwIfAborted();
    const reason = `${path}: ${reasonOf(error)}`;
    throw new FindNatsError(`${reason}; ${fix}.`, { tried: [reason], cause: error });
  }
}

function candidates({ home, env, folders }: BinaryOptions): string[] {
  const own = env["HOME"] && isAbsolute(env["HOME"]) ? [join(env["HOME"], "go/bin")] : [];
  const usual = folders ?? ["/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", ...own];
  const paths = [...searchPath(env), ...usual].map((folder) => join(folder, "nats-server"));
  return [...new Set([...paths, cachedBinary(home)])].filter((path) => existsSync(path));
}
