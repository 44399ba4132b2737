// `npm run lock`, after any change of dependencies: makes package-lock.json complete for every platform.
// npm leaves a platform's package out of the lock when the registry at hand does not carry it, and `npm ci` then
// refuses the lock everywhere. An entry with version and platform, without a checksum, is what `npm ci` needs.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root, say } from "./command.ts";

interface Entry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface Lock {
  packages: Record<string, Entry>;
}

const systems = [
  "aix",
  "android",
  "darwin",
  "freebsd",
  "linux",
  "netbsd",
  "openbsd",
  "openharmony",
  "sunos",
  "win32",
];
const processors: readonly (readonly [RegExp, string])[] = [
  [/arm64|aarch64/, "arm64"],
  [/arm/, "arm"],
  [/x64/, "x64"],
  [/ia32/, "ia32"],
  [/loong64/, "loong64"],
  [/mips64el/, "mips64el"],
  [/ppc64/, "ppc64"],
  [/riscv64/, "riscv64"],
  [/s390x/, "s390x"],
];

/** Entries that the lock lacks: optional packages of locked packages, with the platform that their name tells. */
export function missingEntries(lock: Lock): Record<string, Entry> {
  const missing: Record<string, Entry> = {};
  for (const [parent, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (parent === "" || isLocked(lock, parent, name)) continue;
      const { os, cpu, libc } = platformOf(name);
      const dev = entry.dev === true ? { dev: true } : {};
      // In the order in which npm writes them.
      missing[`node_modules/${name}`] = { version, cpu, ...dev, ...(libc && { libc }), optional: true, os };
    }
  }
  return missing;
}

/** As Node resolves: in the package's own node_modules, then in each one above it. */
function isLocked(lock: Lock, parent: string, name: string): boolean {
  for (
    let folder = parent;
    ;
    folder = folder.slice(0, Math.max(0, folder.lastIndexOf("node_modules/") - 1))
  ) {
    const path = folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (lock.packages[path] !== undefined) return true;
    if (folder === "") return false;
  }
}

function platformOf(name: string): { os: string[]; cpu: string[]; libc: string[] | undefined } {
  const system = systems.find((word) => name.includes(word));
  const processor = processors.find(([word]) => word.test(name.slice(name.indexOf(system ?? "")) || name));
  if (system === undefined || processor === undefined) {
    throw new Error(
      `${name} is missing from package-lock.json and its name tells no platform; see scripts/complete-lock.ts`,
    );
  }
  const libc = /musl/.test(name) ? ["musl"] : /gnu/.test(name) && system === "linux" ? ["glibc"] : undefined;
  return { os: [system], cpu: [processor[1]], libc };
}

export function readLock(folder: string): Lock {
  return JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8")) as Lock;
}

if (import.meta.main) {
  const lock = readLock(root);
  const missing = missingEntries(lock);
  const { "": top, ...others } = lock.packages;
  const sorted = Object.entries({ ...others, ...missing }).sort(([a], [b]) => a.localeCompare(b, "en"));
  lock.packages = Object.fromEntries([...(top === undefined ? [] : [["", top] as const]), ...sorted]);
  writeFileSync(join(root, "package-lock.json"), `${JSON.stringify(lock, null, 2)}\n`);
  say(`package-lock.json: ${Object.keys(missing).length} entries for other platforms added`);
}
