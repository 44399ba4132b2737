/**
 * Where Weft keeps what belongs to the user and not to one sidecar: the shared nats-server's data and a
 * fetched binary. `$WEFT_HOME`, else `$HOME/.weft`, else a private folder of this user among the temporary
 * files.
 */
import { createHash } from "node:crypto";
import { accessSync, constants, lstatSync, mkdirSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { FindNatsError, reasonOf } from "./errors.ts";

/** Names of every file in a Weft home. Paths are absolute; nothing says that they exist. */
export type Home = {
  readonly path: string;
  /** Name the shared server of this home gives itself in its INFO line; another home has another name. */
  readonly serverName: string;
  readonly binFolder: string;
  readonly natsFolder: string;
  readonly dataFolder: string;
  readonly lockFile: string;
  readonly stateFile: string;
  readonly configFile: string;
  readonly logFile: string;
  /** What nats-server writes before its log is open, and traces of a crash. */
  readonly outputFile: string;
};

export type HomeOptions = {
  /** The folder itself; goes before the environment. */
  readonly home?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
};

const fix =
  "Set WEFT_HOME to a folder you can write to, or give a running server with --nats-url / WEFT_NATS_URL.";

/** Says which folder is the home, without touching the disk beyond resolving links. */
export function locateHome(options: HomeOptions): Home {
  return describeHome(chooseFolder(options).path);
}

/**
 * Like `locateHome`, and makes the folder (mode 0700) and its parts. Throws FindNatsError when it cannot be
 * used.
 */
export function openHome(options: HomeOptions): Home {
  const { path, temporary } = chooseFolder(options);
  makeFolder(path);
  if (temporary) checkPrivate(path);
  const home = describeHome(path);
  for (const folder of [home.natsFolder, home.binFolder, home.dataFolder]) makeFolder(folder);
  return home;
}

function chooseFolder({ home, env }: HomeOptions): { path: string; temporary: boolean } {
  const given = home || env["WEFT_HOME"];
  if (given) return { path: resolve(given), temporary: false };
  if (env["HOME"]) return { path: resolve(env["HOME"], ".weft"), temporary: false };
  const user = process.getuid?.() ?? "user";
  return { path: join(resolve(env["TMPDIR"] || tmpdir()), `weft-${user}`), temporary: true };
}

function describeHome(given: string): Home {
  // Two names of one folder must give one server name, or two sidecars would not know each other's server.
  const path = realPath(given);
  const natsFolder = join(path, "nats");
  const hash = createHash("sha256").update(path).digest("hex").slice(0, 16);
  return {
    path,
    serverName: `weft-${hash}`,
    binFolder: join(path, "bin"),
    natsFolder,
    dataFolder: join(natsFolder, "data"),
    lockFile: join(natsFolder, "server.lock"),
    stateFile: join(natsFolder, "server.json"),
    configFile: join(natsFolder, "nats-server.conf"),
    logFile: join(natsFolder, "nats-server.log"),
    outputFile: join(natsFolder, "nats-server.out"),
  };
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    accessSync(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new FindNatsError(`Weft cannot write to its folder ${path}: ${reasonOf(error)}. ${fix}`, {
      cause: error,
    });
  }
}

/** Among temporary files anybody may have made the folder first, to read our data or to feed us a binary. */
function checkPrivate(path: string): void {
  const stat = lstatSync(path);
  const owner = process.getuid?.();
  const problem = !stat.isDirectory()
    ? "is not a plain folder"
    : owner !== undefined && stat.uid !== owner
      ? `belongs to another user (uid ${stat.uid})`
      : owner !== undefined && (stat.mode & 0o077) !== 0
        ? `is open to other users (mode ${(stat.mode & 0o777).toString(8)}, wanted 700)`
        : undefined;
  if (problem !== undefined) {
    throw new FindNatsError(
      `There is no HOME, and the folder ${path} that Weft would use ${problem}. ${fix}`,
    );
  }
}
