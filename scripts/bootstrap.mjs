// Starts one of our TypeScript scripts on a machine that may have nothing but npm and some Node >= 18:
// installs node_modules when it does not match package-lock.json, finds Node 24, runs the script under it.
// Plain JavaScript without dependencies, because it runs before either of the two is there.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const installLock = join(root, ".cache", "install.lock");
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"];
/** A terminal and npm both deliver the same Ctrl-C; what follows within this time is that echo. */
const ECHO_MS = 500;
const LOCK_WAIT_MS = 15 * 60_000;

class Problem extends Error {}

/**
 * True when node_modules holds what package-lock.json asks for. npm writes down what it installed, so this stays
 * true after `npm install` or `npm ci` by hand; a package may be missing only when it is optional (other platforms).
 */
export function modulesMatchLock(folder) {
  const wanted = readJson(join(folder, "package-lock.json"));
  const present = readJson(join(folder, "node_modules", ".package-lock.json"));
  if (wanted === undefined || present === undefined) return false;
  for (const [path, entry] of Object.entries(wanted.packages)) {
    if (path === "" || entry.link) continue;
    const found = present.packages[path];
    if (found === undefined ? !entry.optional : found.version !== entry.version) return false;
    if (found?.integrity !== undefined && found.integrity !== entry.integrity) return false;
  }
  return true;
}

/** The Node 24 to run under: the pinned package, else this very Node when it is new enough. */
export function findNode(folder) {
  const pinned = join(folder, "node_modules", `node-${process.platform}-${process.arch}`, "bin", "node");
  if (existsSync(pinned)) return pinned;
  if (Number(process.versions.node.split(".")[0]) >= 24) return process.execPath;
  throw new Problem(
    `Weft needs Node 24; this is ${process.version} and no pinned build exists for ` +
      `${process.platform}-${process.arch}.\n` +
      "Fix: install Node 24 (`nvm install` and `fnm use` read our .nvmrc; on macOS also `brew install node@24`), " +
      "then run the same command again.",
  );
}

function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

/** How to start npm: the one that started us, else the one beside this Node, else the one on the PATH. */
function findNpm() {
  const candidates = [];
  const starter = process.env.npm_execpath;
  if (starter !== undefined && /^npm(-cli)?\.c?js$/.test(basename(starter))) candidates.push(starter);
  const beside = dirname(process.execPath);
  candidates.push(resolve(beside, "../lib/node_modules/npm/bin/npm-cli.js"));
  candidates.push(resolve(beside, "node_modules/npm/bin/npm-cli.js"));
  const script = candidates.find((file) => existsSync(file));
  if (script !== undefined) return { command: process.execPath, args: [script] };
  const folders = [beside, ...(process.env.PATH ?? "").split(delimiter)];
  const program = folders.map((folder) => join(folder, "npm")).find((file) => existsSync(file));
  if (program !== undefined) return { command: program, args: [] };
  throw new Problem(
    "npm was not found beside this Node nor on the PATH. Fix: install npm, or run `npm ci` yourself.",
  );
}

async function ensureModules() {
  if (modulesMatchLock(root)) return;
  const release = await takeInstallLock();
  try {
    if (!modulesMatchLock(root)) await install();
  } finally {
    release();
  }
}

async function install() {
  const npm = findNpm();
  const started = Date.now();
  const seconds = () => Math.round((Date.now() - started) / 1000);
  say("weft: installing dependencies from package-lock.json (Node 24 is one of them; first run only) ...");
  // No install script of any dependency is needed: esbuild, buf and msgpackr bring their binaries as packages.
  const args = [...npm.args, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const child = spawn(npm.command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => (output = (output + chunk).slice(-16_384)));
  }
  const progress = setInterval(() => say(`weft: still installing, ${seconds()} s ...`), 15_000);
  const stop = () => child.kill("SIGTERM");
  process.on("SIGINT", stop).on("SIGTERM", stop);
  const { code, signal } = await ended(child).finally(() => {
    clearInterval(progress);
    process.off("SIGINT", stop).off("SIGTERM", stop);
  });
  if (signal !== null) throw new Problem(`npm ci was stopped by ${signal}.`);
  if (code !== 0)
    throw new Problem(`${output.trim()}\nnpm ci failed (exit code ${code}); its words are above.`);
  say(`weft: dependencies ready in ${seconds()} s`);
}

/** Two commands on a fresh clone must not both run `npm ci`, which empties node_modules first. */
async function takeInstallLock() {
  mkdirSync(dirname(installLock), { recursive: true });
  const until = Date.now() + LOCK_WAIT_MS;
  let told = false;
  for (;;) {
    try {
      writeFileSync(installLock, String(process.pid), { flag: "wx" });
      return () => rmSync(installLock, { force: true });
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (!holderLives()) rmSync(installLock, { force: true });
    if (!told) say("weft: another command is installing the dependencies, waiting for it ...");
    told = true;
    if (Date.now() > until) throw new Problem(`Waited too long. Fix: remove ${installLock} and try again.`);
    await sleep(200);
  }
}

function holderLives() {
  let pid = 0;
  try {
    pid = Number(readFileSync(installLock, "utf8"));
    if (pid > 0) process.kill(pid, 0);
    return true;
  } catch (error) {
    return pid === 0 ? existsSync(installLock) : error.code === "EPERM";
  }
}

function ended(child) {
  return new Promise((fulfil, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => fulfil({ code, signal }));
  });
}

/**
 * Runs the script as the leader of its own process group, so that a Ctrl-C reaches it through us alone: once, and not
 * once more from the terminal and from npm each. We stay until it has cleaned up.
 */
async function runScript(node, script, args) {
  const lifeline = pathToFileURL(join(root, "scripts", "lifeline.mjs")).href;
  const env = { NODE_COMPILE_CACHE: join(root, ".cache", "node-compile"), ...process.env };
  const child = spawn(node, ["--import", lifeline, resolve(root, script), ...args], {
    cwd: root,
    stdio: "inherit",
    detached: true,
    env: { ...env, WEFT_PARENT_PID: String(process.pid) },
  });
  const last = new Map();
  for (const signal of FORWARDED) {
    process.on(signal, () => {
      const now = Date.now();
      if (now - (last.get(signal) ?? 0) < ECHO_MS && signal !== "SIGWINCH") return;
      last.set(signal, now);
      child.kill(signal);
    });
  }
  if (process.env.npm_lifecycle_event !== undefined) onParentGone(() => child.kill("SIGTERM"));
  const { code, signal } = await ended(child);
  process.exit(signal === null ? code : 128 + (constants.signals[signal] ?? 0));
}

/** npm killed outright tells nobody; without it there is no reader of our output and nobody to press Ctrl-C. */
function onParentGone(act) {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    act();
  }, 500);
}

function say(line) {
  process.stderr.write(`${line}\n`);
}

async function main() {
  const [script, ...args] = process.argv.slice(2);
  if (script === undefined) throw new Problem("usage: node scripts/bootstrap.mjs <script> [arguments]");
  await ensureModules();
  const node = findNode(root);
  if (!existsSync(resolve(root, script))) throw new Problem(`${script} is not part of this checkout.`);
  await runScript(node, script, args);
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    say(`weft: ${error instanceof Problem ? error.message : error.stack}`);
    process.exit(1);
  });
}
