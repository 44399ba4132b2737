// The tidy rules that look at one file at a time. Each gives failures as "path:line what. Fix".
import { lineAt, type Source } from "./source.ts";

const maxLines = 500;
const maxWidth = 120;

interface Banned {
  readonly what: RegExp;
  readonly name: string;
  readonly fix: string;
}

const clocks: readonly Banned[] = [
  { what: /\bDate\.now\b/g, name: "Date.now", fix: "use clock.nowMs()" },
  { what: /\bnew Date\(\s*\)/g, name: "new Date()", fix: "use new Date(clock.nowMs())" },
  { what: /\bperformance\.now\b/g, name: "performance.now", fix: "use clock.monotonicMs()" },
  { what: /\bprocess\.hrtime\b/g, name: "process.hrtime", fix: "use clock.monotonicMs()" },
  { what: /(?<![.\w$])setTimeout\s*\(/g, name: "setTimeout", fix: "use clock.setTimeout or clock.sleep" },
  { what: /(?<![.\w$])setInterval\s*\(/g, name: "setInterval", fix: "use clock.setInterval" },
  {
    what: /\bAbortSignal\.timeout\b/g,
    name: "AbortSignal.timeout",
    fix: "abort a controller from clock.setTimeout",
  },
  { what: /\bMath\.random\s*\(/g, name: "Math.random", fix: "take a Random, or use node:crypto for ids" },
];

const servers: Banned = {
  what: /\bcreate(Secure)?Server\s*\(/g,
  name: "a server",
  fix: "servers are opened in src/ingress (metrics: src/telemetry); a client uses connect or undici",
};

const anyType: Banned = {
  what: /(?:(?:[:<|&]|=>|\bas|\bextends|(?<=\btype\s+\w+\s*)=)\s*any\b(?!\s*[:(.\w])|,\s*any\s*>)/g,
  name: "the type any",
  fix: "use unknown and narrow it, or write the type",
};

const moduleState: Banned = {
  what: /^(?:export\s+)?(?:let|var)\s/gm,
  name: "mutable module state",
  fix: "hold it in an object that a create function returns: one process hosts many sidecars",
};

function matches(source: Source, banned: Banned): string[] {
  return [...source.code.matchAll(banned.what)].map(
    (match) => `${source.path}:${lineAt(source.text, match.index)} has ${banned.name}. Fix: ${banned.fix}`,
  );
}

/** Real time and chance, outside the places that wrap them. */
export function clockFailures(source: Source): string[] {
  if (source.path.startsWith("src/lib/") || source.path === "mesh/clock.ts") return [];
  return clocks.flatMap((banned) => matches(source, banned));
}

/** Listening sockets, outside ingress and the metrics server. */
export function serverFailures(source: Source): string[] {
  const mayListen = ["src/ingress/", "src/telemetry/"].some((prefix) => source.path.startsWith(prefix));
  return mayListen || source.path.startsWith("mesh/") ? [] : matches(source, servers);
}

export function anyFailures(source: Source): string[] {
  return matches(source, anyType);
}

export function moduleStateFailures(source: Source): string[] {
  return matches(source, moduleState);
}

/** Length of the file (a `Size: reason` in its head lifts it) and width of its lines. */
export function sizeFailures(source: Source): string[] {
  const lines = source.text.split("\n");
  const failures: string[] = [];
  const excused = lines.slice(0, 15).some((line) => /\bSize: \S/.test(line));
  if (lines.length - 1 > maxLines && !excused) {
    failures.push(
      `${source.path}:${maxLines + 1} has ${lines.length - 1} lines, the limit is ${maxLines}. ` +
        "Fix: split it by idea, or give the reason in its head as `Size: <reason>`",
    );
  }
  lines.forEach((line, index) => {
    const width = [...line].length;
    if (width <= maxWidth || /https?:\/\/\S{60,}/.test(line)) return;
    failures.push(
      `${source.path}:${index + 1} is ${width} wide, the limit is ${maxWidth}. Fix: break the line`,
    );
  });
  return failures;
}

// Assembled from parts, because these very words may not stand in the repository.
const dot = "\\.";
const hosts = [
  ["registry", "npmjs", "org"],
  ["registry", "yarnpkg", "com"],
  ["pypi", "org"],
  ["pythonhosted", "org"],
  ["crates", "io"],
  ["proxy", "golang", "org"],
  ["repo\\d?", "maven", "(apache|org)"],
  ["deb", "debian", "org"],
].map((parts) => parts.join(dot));
const registryHost = new RegExp(`\\b(${hosts.join("|")})\\b`, "gi");
const unfinished = /\b(?:TO[D]O|FIX[M]E)\b/g;
const unrunTest = /\b(?:it|test|describe)\.(?:skip|only|todo|skipIf|runIf|fails)\b/g;

/** Words that may stand in no text file: registry hosts, and marks of unfinished work. */
export function wordFailures(path: string, text: string): string[] {
  const failures: string[] = [];
  for (const match of text.matchAll(registryHost)) {
    failures.push(
      `${path}:${lineAt(text, match.index)} names a package registry's host. Fix: name the package only`,
    );
  }
  for (const match of text.matchAll(unfinished)) {
    failures.push(
      `${path}:${lineAt(text, match.index)} has ${match[0]}. Fix: do it, or say what is missing in docs`,
    );
  }
  return failures;
}

/** Tests that do not run. */
export function unrunTestFailures(source: Source): string[] {
  return [...source.code.matchAll(unrunTest)].map((match) => {
    const at = `${source.path}:${lineAt(source.text, match.index)}`;
    return `${at} has ${match[0]}. Fix: make it run; a case for some capability goes under an if`;
  });
}

/** Versions that are not exact: in package.json every dependency, in requirements files every line. */
export function versionFailures(path: string, text: string): string[] {
  const failures: string[] = [];
  if (path.endsWith("package.json")) {
    const manifest = JSON.parse(text) as Record<string, Record<string, string> | undefined>;
    for (const group of ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"]) {
      for (const [name, version] of Object.entries(manifest[group] ?? {})) {
        if (/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version) || version.startsWith("file:")) continue;
        const line = lineAt(text, text.indexOf(`"${name}"`));
        failures.push(`${path}:${line} wants ${name} ${version}. Fix: write the exact version`);
      }
    }
    return failures;
  }
  text.split("\n").forEach((line, index) => {
    const bare = line.replace(/#.*/, "").trim();
    if (bare === "" || bare.startsWith("-") || /^[\w.[\],-]+==[\w.]+/.test(bare)) return;
    failures.push(`${path}:${index + 1} wants ${bare}. Fix: write name==version`);
  });
  return failures;
}

/** Blocks that other blocks use and that clients cannot call. */
const withoutApi: ReadonlySet<string> = new Set(["outbox"]);

/** A block folder lacks part of the shape that all blocks share. `files` are all paths of the checkout. */
export function blockShapeFailures(files: readonly string[]): string[] {
  const present = new Set(files);
  const blocks = new Set(
    files.map((path) => /^src\/blocks\/([^/]+)\//.exec(path)?.[1]).filter((name) => name),
  );
  const failures: string[] = [];
  for (const block of blocks) {
    const wanted = ["index.ts", `${block}.ts`, "errors.ts", "README.md"];
    if (!withoutApi.has(block!)) wanted.push("http.ts", "grpc.ts");
    if (files.some((path) => path.startsWith(`src/components/${block}/`))) wanted.push("port.ts");
    for (const name of wanted) {
      if (present.has(`src/blocks/${block}/${name}`)) continue;
      failures.push(`src/blocks/${block}/${name}:1 is missing. Fix: every block has ${wanted.join(", ")}`);
    }
  }
  return failures;
}
