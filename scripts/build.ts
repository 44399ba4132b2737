// `npm run build`: dist/weftd and dist/weft, one self-contained executable under two names (hard links). It is the
// pinned Node with our bundle and its compiled code inside. `--if-stale` does nothing when no input has changed.
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join, relative } from "node:path";
import { build as bundle } from "esbuild";
import { endToolsOnSignal, hasProgram, root, runCommand, runNode, say } from "./command.ts";
import { sidecarNodeFlags } from "../src/cli/sidecar-command.ts";
import { measureStart } from "./measure-start.ts";

const dist = join(root, "dist");
const stampFile = join(dist, "inputs.json");
const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";

/** Flags of Node and V8 that the executable always runs with; NODE_OPTIONS of the user's app does not reach it. */
const nodeFlags: readonly string[] = sidecarNodeFlags;

/** A sidecar on free ports that looks for NATS where nothing listens: enough to compile its way to serving. */
const warmUpArgs = [
  ["--app-id", "warm-up"],
  ["--dapr-grpc-port", "0"],
  ["--dapr-internal-grpc-port", "0"],
  ["--metrics-port", "0"],
  ["--nats-url", "nats://127.0.0.1:9"],
].flat();

interface Stamp {
  readonly hash: string;
  readonly inputs: readonly string[];
}

/** Bundles everything into one script; resolves to the files it is made of, relative to the root. */
async function makeBundle(output: string): Promise<string[]> {
  const { metafile } = await bundle({
    entryPoints: [join(root, "scripts", "sea", "entry.ts")],
    outfile: output,
    absWorkingDir: root,
    bundle: true,
    // What fails is printed once, by us.
    logLevel: "silent",
    platform: "node",
    target: "node24",
    format: "cjs",
    // Names stay, for stack traces; the rest only costs memory. Lines stay short, because Node prints the whole
    // line that threw.
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 200,
    legalComments: "none",
    sourcemap: "external",
    metafile: true,
    // A native addon, and optional: msgpackr works without it.
    external: ["msgpackr-extract"],
    // The executable cannot import() files: import() of a built-in module becomes require.
    supported: { "dynamic-import": false },
    define: {
      "import.meta.url": "weftUrl",
      "import.meta.filename": "process.execPath",
      "import.meta.dirname": "weftFolder",
      "import.meta.main": "true",
    },
    banner: {
      js:
        "(function (exports, require, module, __filename, __dirname) {" +
        'const weftUrl = require("node:url").pathToFileURL(process.execPath).href;' +
        'const weftFolder = require("node:path").dirname(process.execPath);',
    },
    footer: { js: "})" },
  });
  return Object.keys(metafile.inputs);
}

/** Compiled code of the bundle, after it has run as a sidecar and served a few calls. */
async function makeCodeCache(bundleFile: string, output: string): Promise<void> {
  const script = join(root, "scripts", "sea", "warm-up.cjs");
  const args = [...nodeFlags, script, bundleFile, output, `${output}.components`, ...warmUpArgs];
  await must("warm-up run of the bundle", runCommand(process.execPath, args, { emptyEnv: true }));
}

async function makeBlob(work: string): Promise<string> {
  const config = {
    main: join(root, "scripts", "sea", "main.cjs"),
    output: join(work, "weft.blob"),
    disableExperimentalSEAWarning: true,
    useCodeCache: false,
    execArgv: nodeFlags,
    execArgvExtension: "none",
    assets: { "weft.js": join(work, "weft.js"), "weft.cache": join(work, "weft.cache") },
  };
  const file = join(work, "sea.json");
  writeFileSync(file, JSON.stringify(config));
  await must("sea blob", runCommand(process.execPath, ["--experimental-sea-config", file]));
  return config.output;
}

/** The pinned Node with the blob inside, as a file that is complete or absent. */
async function makeExecutable(work: string, blob: string, target: string): Promise<void> {
  const host = join(work, "node");
  copyFileSync(process.execPath, host);
  chmodSync(host, 0o755);
  if (await hasProgram("strip")) await must("strip", runCommand("strip", [host]));
  const args = [host, "NODE_SEA_BLOB", blob, "--sentinel-fuse", fuse];
  await must("postject", runNode("node_modules/postject/dist/cli.js", args));
  copyInSmallWrites(host, `${target}.new`);
  chmodSync(`${target}.new`, 0o755);
  renameSync(`${target}.new`, target);
}

/**
 * A file written in one piece lies in the page cache in large pieces, which the kernel then maps whole: 17 MB more
 * resident memory for each process, measured on Linux 6.18, until the file leaves the cache.
 */
function copyInSmallWrites(from: string, to: string): void {
  rmSync(to, { force: true });
  const input = openSync(from, "r");
  const output = openSync(to, "w");
  const piece = Buffer.allocUnsafe(64 * 1024);
  for (let size = readSync(input, piece); size > 0; size = readSync(input, piece))
    writeSync(output, piece, 0, size);
  closeSync(input);
  closeSync(output);
}

async function must(step: string, running: ReturnType<typeof runCommand>): Promise<void> {
  const result = await running;
  if (result.code !== 0) throw new Error(`${step} failed with exit code ${result.code}:\n${result.output}`);
}

function hashOf(inputs: readonly string[]): string {
  const hash = createHash("sha256").update(process.version).update(process.arch);
  for (const path of inputs) {
    const file = join(root, path);
    hash.update(path).update(existsSync(file) ? readFileSync(file) : "");
  }
  return hash.digest("hex");
}

function isCurrent(): boolean {
  if (!["weft", "weftd", "inputs.json"].every((name) => existsSync(join(dist, name)))) return false;
  const stamp = JSON.parse(readFileSync(stampFile, "utf8")) as Stamp;
  return hashOf(stamp.inputs) === stamp.hash;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

async function buildAll(): Promise<void> {
  const started = performance.now();
  const work = join(dist, `work-${process.pid}`);
  mkdirSync(work, { recursive: true });
  try {
    const bundleFile = join(work, "weft.js");
    const bundled = await makeBundle(bundleFile);
    say(`bundle   ${megabytes(statSync(bundleFile).size)} from ${bundled.length} files`);
    const cacheFile = join(work, "weft.cache");
    await makeCodeCache(bundleFile, cacheFile);
    say(`code     ${megabytes(statSync(cacheFile).size)} compiled ahead`);
    const weftd = join(dist, "weftd");
    await makeExecutable(work, await makeBlob(work), weftd);
    const weft = join(dist, "weft");
    rmSync(weft, { force: true });
    linkSync(weftd, weft);
    renameSync(`${bundleFile}.map`, join(dist, "weft.js.map"));
    const own = ["build.ts", "sea/main.cjs", "sea/warm-up.cjs"].map((name) => `scripts/${name}`);
    const inputs = [...bundled, ...own, "package-lock.json"].sort();
    writeFileSync(stampFile, JSON.stringify({ hash: hashOf(inputs), inputs } satisfies Stamp));
    for (const file of [weftd, weft]) {
      const start = await measureStart(file, ["--version"]);
      say(`${relative(root, file).padEnd(10)} ${megabytes(statSync(file).size)}; ${start}`);
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  say(`built in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

async function main(args: readonly string[]): Promise<void> {
  endToolsOnSignal();
  if (process.platform !== "linux") {
    throw new Error(
      "executables are built on Linux, where Node 24 is pinned; here, run bin/weftd and bin/weft",
    );
  }
  if (args.includes("--if-stale") && isCurrent()) say("dist/weftd and dist/weft are current");
  else await buildAll();
}

await main(process.argv.slice(2)).catch((error: unknown) => {
  say(`build: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
