/**
 * Programs of test/compat in Go and Java, built at test time into .cache/compat: once, and again when a source changes.
 * A toolchain that is missing or fails rejects with what it said.
 */
import { createHash } from "node:crypto";
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { withFileLock } from "./file-lock.ts";
import { checkout } from "./paths.ts";
import { inheritedEnv, startProcess } from "./process.ts";

/** Longest time for downloads and build together, ms. */
const buildTimeoutMs = 240_000;

/** How a program is started: command and first arguments. */
export type BuiltProgram = readonly [command: string, ...args: string[]];

/** The program of a folder of test/compat, with the modules that its go.sum pins. */
export function goProgram(folder = "go"): Promise<BuiltProgram> {
  const source = join(checkout, "test/compat", folder);
  const binary = join(checkout, ".cache/compat", folder, "program");
  return built(source, "*", dirname(binary), async () => {
    await tool("go", ["build", "-mod=readonly", "-o", binary, "."], source, "Go 1.26 or newer");
    return [binary];
  });
}

/** The WebAssembly program of a folder of Go source, as a reactor; resolves with its file. */
export async function goWasm(source: string): Promise<string> {
  const file = join(checkout, ".cache/compat/wasm", basename(source), "guest.wasm");
  const build = ["build", "-buildmode=c-shared", "-o", file, "."];
  const [path] = await built(source, "*", dirname(file), async () => {
    await tool("go", build, source, "Go 1.26 or newer", { GOOS: "wasip1", GOARCH: "wasm" });
    return [file];
  });
  return path;
}

const compatJava = {
  source: join(checkout, "test/compat/java"),
  target: join(checkout, ".cache/compat/java"),
};

/** A class of a folder of Java sources (test/compat/java), with the artifacts that the pom.xml in it pins. */
export function javaProgram(
  mainClass: string,
  { source, target }: { readonly source: string; readonly target: string } = compatJava,
): Promise<BuiltProgram> {
  const libraries = join(target, "lib");
  const classes = join(target, "classes");
  return built(source, "*", target, async () => {
    const goal = ["dependency:copy-dependencies", `-DoutputDirectory=${libraries}`, "-DincludeScope=runtime"];
    await tool(
      "mvn",
      ["-q", "-B", "-f", join(source, "pom.xml"), ...goal],
      target,
      "Maven and a JDK 17 or newer",
    );
    const sources = globSync("*.java", { cwd: source }).map((name) => join(source, name));
    await tool(
      "javac",
      ["-encoding", "UTF-8", "-cp", `${libraries}/*`, "-d", classes, ...sources],
      target,
      "a JDK 17 or newer",
    );
    return ["java"];
  }).then((command) => [
    ...command,
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-cp",
    `${classes}:${libraries}/*`,
    mainClass,
  ]);
}

/** Builds unless the stamp in the folder says that these sources were built. */
async function built(
  source: string,
  pattern: string,
  folder: string,
  build: () => Promise<BuiltProgram>,
): Promise<BuiltProgram> {
  mkdirSync(dirname(folder), { recursive: true });
  return withFileLock(`${folder}.lock`, async () => {
    const hash = createHash("sha256");
    for (const name of globSync(pattern, { cwd: source }).toSorted())
      hash.update(name).update(readFileSync(join(source, name)));
    const wanted = hash.digest("hex");
    const stamp = join(folder, "built.json");
    if (existsSync(stamp)) {
      const last = JSON.parse(readFileSync(stamp, "utf8")) as { sources: string; command: BuiltProgram };
      if (last.sources === wanted) return last.command;
    }
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const command = await build();
    writeFileSync(stamp, JSON.stringify({ sources: wanted, command }));
    return command;
  });
}

/** Runs a build tool to its end, with the user's home, where it keeps what it downloads. */
async function tool(
  command: string,
  args: readonly string[],
  cwd: string,
  needed: string,
  more: Readonly<Record<string, string>> = {},
): Promise<void> {
  const env = { ...inheritedEnv(), ...toolEnv(), HOME: homedir(), ...more };
  await using running = await startProcess({ name: command, command, args, env, cwd }).catch(
    (cause: unknown) => {
      throw new Error(`${command} cannot be started. Fix: install ${needed}`, { cause });
    },
  );
  const late = setTimeout(() => running.signal("SIGKILL"), buildTimeoutMs);
  const code = await running.exited;
  clearTimeout(late);
  if (code !== 0)
    throw new Error(
      `${command} ${args.join(" ")} ended with code ${code}. Needed: ${needed}\n${running.logs()}`,
    );
}

/** How this machine reaches its package sources. */
function toolEnv(): Record<string, string> {
  const names =
    /^(GO[A-Z0-9]+|JAVA_HOME|MAVEN_[A-Z_]+|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|SSL_CERT_(FILE|DIR))$/;
  return Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] => names.test(entry[0]) && entry[1] !== undefined,
    ),
  );
}
