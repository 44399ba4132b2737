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
import { isBuiltin } from "node:module";
import { join, relative } from "node:path";
import { build as bundle, type BuildOptions, type Plugin } from "esbuild";
import { endToolsOnSignal, hasProgram, root, runCommand, runNode, say } from "./command.ts";
import { measureStart } from "./measure-start.ts";

const dist = join(root, "dist");
const stampFile = join(dist, "inputs.json");
const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";

/** Flags of Node and V8 that the executable always runs with; NODE_OPTIONS of the user's app does not reach it. */
const nodeFlags: readonly string[] = [];

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

/** What all bundles have in common. */
const bundleOptions = {
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
} as const satisfies BuildOptions;

interface Bundle {
  /** Files it is made of, relative to the root. */
  readonly inputs: readonly string[];
  /** Client packages that components import when they are opened; each becomes an asset of its own. */
  readonly packages: readonly string[];
}

/** Bundles everything into one script, but for the client packages of components, which few sidecars use. */
async function makeBundle(output: string): Promise<Bundle> {
  const packages = new Set<string>();
  const { metafile } = await bundle({
    ...bundleOptions,
    entryPoints: [join(root, "scripts", "sea", "entry.ts")],
    outfile: output,
    sourcemap: "external",
    plugins: [leaveOutPackages(packages)],
  });
  return { inputs: Object.keys(metafile.inputs), packages: [...packages].sort() };
}

/** Notes and leaves out every package that a component file imports by import(). */
function leaveOutPackages(packages: Set<string>): Plugin {
  return {
    name: "client packages",
    setup(build) {
      build.onResolve({ filter: /^[^.]/ }, ({ kind, path, importer }) => {
        const ofComponent = relative(root, importer).startsWith(join("src", "components"));
        if (kind !== "dynamic-import" || !ofComponent || isBuiltin(path)) return undefined;
        packages.add(path);
        return { path, external: true };
      });
    },
  };
}

/** One client package as a script whose `module.exports` is the package's; resolves to the files it is made of. */
async function makePackage(name: string, output: string): Promise<string[]> {
  const { metafile } = await bundle({
    ...bundleOptions,
    stdin: { contents: `module.exports = require(${JSON.stringify(name)})`, resolveDir: root },
    outfile: output,
  });
  return Object.keys(metafile.inputs).filter((path) => path !== "<stdin>");
}

/** Compiled code of the bundle, after it has run as a sidecar and served a few calls. */
async function makeCodeCache(bundleFile: string, output: string): Promise<void> {
  const script = join(root, "scripts", "sea", "warm-up.cjs");
  const args = [...nodeFlags, script, bundleFile, output, `${output}.components`, ...warmUpArgs];
  await must("warm-up run of the bundle", runCommand(process.execPath, args, { emptyEnv: true }));
}

/** `packages` are names of client packages, their scripts by `packageFile`. */
async function makeBlob(work: string, packages: readonly string[]): Promise<string> {
  const packageAssets = packages.map((name) => [`packages/${name}`, packageFile(work, name)]);
  const config = {
    main: join(root, "scripts", "sea", "main.cjs"),
    output: join(work, "weft.blob"),
    disableExperimentalSEAWarning: true,
    useCodeCache: false,
    execArgv: nodeFlags,
    execArgvExtension: "none",
    assets: {
      "weft.js": join(work, "weft.js"),
      "weft.cache": join(work, "weft.cache"),
      ...Object.fromEntries(packageAssets),
    },
  };
  const file = join(work, "sea.json");
  writeFileSync(file, JSON.stringify(config));
  await must("sea blob", runCommand(process.execPath, ["--experimental-sea-config", file]));
  return config.output;
}

function packageFile(work: string, name: string): string {
  return join(work, `${name.replace(/[^\w.-]/g, "_")}.js`);
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
    const { inputs: bundled, packages } = await makeBundle(bundleFile);
    say(`bundle   ${megabytes(statSync(bundleFile).size)} from ${bundled.length} files`);
    const packaged: string[] = [];
    for (const name of packages) packaged.push(...(await makePackage(name, packageFile(work, name))));
    const sizes = packages.map((name) => statSync(packageFile(work, name)).size);
    const together = megabytes(sizes.reduce((sum, size) => sum + size, 0));
    say(`clients  ${together} in ${packages.length} packages, loaded when a component needs them`);
    const cacheFile = join(work, "weft.cache");
    await makeCodeCache(bundleFile, cacheFile);
    say(`code     ${megabytes(statSync(cacheFile).size)} compiled ahead`);
    const weftd = join(dist, "weftd");
    await makeExecutable(work, await makeBlob(work, packages), weftd);
    const weft = join(dist, "weft");
    rmSync(weft, { force: true });
    linkSync(weftd, weft);
    renameSync(`${bundleFile}.map`, join(dist, "weft.js.map"));
    const own = ["build.ts", "sea/main.cjs", "sea/warm-up.cjs"].map((name) => `scripts/${name}`);
    const inputs = [...new Set([...bundled, ...packaged, ...own, "package-lock.json"])].sort();
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
