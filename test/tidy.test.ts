// The rules of the repository as a test: import arrows, limits, banned calls, shape of a block, fresh generated files,
// nothing unreachable. The rules are in scripts/tidy/; what they let pass on purpose is listed here by name.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { missingEntries, readLock } from "../scripts/complete-lock.ts";
import { generatedFiles, stalePages } from "../scripts/gen.ts";
import { arrowFailures, unreachable } from "../scripts/tidy/arrows.ts";
import {
  anyFailures,
  blockShapeFailures,
  clockFailures,
  moduleStateFailures,
  serverFailures,
  sizeFailures,
  unrunTestFailures,
  versionFailures,
  wordFailures,
} from "../scripts/tidy/rules.ts";
import { listFiles, makeSource, readText, type Source } from "../scripts/tidy/source.ts";

/** What may break a rule, and why. Each entry: the start of a failure as it is printed, without the line number. */
const exceptions: readonly { readonly start: string; readonly why: string }[] = [
  { start: "src/cli/free-port.ts has a server", why: "listens for a moment, to learn which port is free" },
];

const entryPoints = ["src/main.ts", "src/cli/main.ts", "mesh/index.ts"];

const root = join(import.meta.dirname, "..");
const files = listFiles(root);
const isGenerated = (path: string): boolean => path.startsWith("proto/gen/") || path.endsWith(".gen.ts");
const handWritten = files.filter((path) => /\.(ts|mjs)$/.test(path) && !isGenerated(path));
const sources = new Map(handWritten.map((path) => [path, makeSource(path, readText(root, path))]));
const all = [...sources.values()];
/** The product itself, without its tests. */
const product = all.filter(({ path }) => /^(src|mesh)\//.test(path) && !/\.(test|d)\.ts$/.test(path));

function expectNone(failures: readonly string[]): void {
  const left = failures.filter((failure) => {
    const bare = failure.replace(/:\d+/, "");
    return !exceptions.some(({ start }) => bare.startsWith(start));
  });
  if (left.length > 0) expect.fail(`${left.length} to mend:\n  ${left.join("\n  ")}`);
}

describe("the checkout", () => {
  it("imports only along the arrows", () => expectNone(product.flatMap(arrowFailures)));
  it("takes time and chance only from what is passed in", () => expectNone(product.flatMap(clockFailures)));
  it("opens servers only in ingress", () => expectNone(product.flatMap(serverFailures)));
  it("has no mutable module state", () => expectNone(product.flatMap(moduleStateFailures)));
  it("has no any", () => expectNone(all.flatMap(anyFailures)));
  it("keeps files and lines short", () => expectNone(all.flatMap(sizeFailures)));
  it("has no test that does not run", () => expectNone(all.flatMap(unrunTestFailures)));
  it("has every block in the same shape", () => expectNone(blockShapeFailures(files)));

  it("names no registry host and leaves nothing marked as unfinished", () => {
    expectNone(files.flatMap((path) => wordFailures(path, sources.get(path)?.text ?? readText(root, path))));
  });

  it("pins exact versions", () => {
    const lists = files.filter((path) => /(^|\/)(package\.json|requirements[\w-]*\.txt)$/.test(path));
    expectNone(lists.flatMap((path) => versionFailures(path, readText(root, path))));
  });

  it("locks dependencies for every platform", () => {
    const [first, ...others] = Object.keys(missingEntries(readLock(root)));
    const what = `package-lock.json:1 lacks ${first} and ${others.length} more, so npm ci refuses it`;
    expectNone(first === undefined ? [] : [`${what}. Fix: npm run lock`]);
  });

  it("reaches every file of the product from an entry point", () => {
    if (!entryPoints.every((path) => sources.has(path))) return;
    const generated = files.filter((path) => path.endsWith(".gen.ts") && path.startsWith("src/"));
    const graph = [...product, ...generated.map((path) => makeSource(path, readText(root, path)))];
    const dead = unreachable(graph, entryPoints);
    expectNone(dead.map((path) => `${path}:1 is imported by nothing that runs. Fix: use it or remove it`));
  });
});

describe("generated files", () => {
  it("of src are what `npm run gen` writes", async () => {
    for (const { path, text } of await generatedFiles()) {
      const present = files.includes(path) ? readText(root, path) : "";
      if (present !== text) expectNone([`${path}:1 is not current. Fix: npm run gen`]);
    }
    expectNone((await stalePages()).map((path) => `${path}:1 belongs to no component. Fix: npm run gen`));
  });

  it("of proto are what proto/generate.ts writes", () => {
    if (!existsSync(join(root, "proto", "generate.ts"))) return;
    // Running the compiler takes seconds, so what passed once is remembered by its content.
    const inputs = [...files.filter((path) => path.startsWith("proto/")), "package-lock.json"];
    const hash = createHash("sha256");
    for (const path of inputs) hash.update(path).update(readText(root, path));
    const passed = join(root, ".cache", "proto-gen-passed", hash.digest("hex"));
    if (existsSync(passed)) return;
    const ran = spawnSync(process.execPath, ["proto/generate.ts", "--check"], {
      cwd: root,
      encoding: "utf8",
    });
    if (ran.status !== 0)
      expectNone([`proto/gen:1 is not current. Fix: npm run gen\n${ran.stdout}${ran.stderr}`]);
    rmSync(dirname(passed), { recursive: true, force: true });
    mkdirSync(passed, { recursive: true });
  });
});

describe("the rules", () => {
  const source = (path: string, text: string): Source => makeSource(path, text);

  it.each([
    ["mesh/call.ts", 'import { x } from "../src/lib/x.ts";', 1],
    ["mesh/call.ts", 'import type { x } from "./types.ts";', 0],
    ["src/blocks/state/state.ts", 'const y = await import("../pubsub/pubsub.ts");', 1],
    ["src/blocks/state/state.ts", 'import {\n  x,\n} from "../../ingress/http.ts";', 1],
    ["src/blocks/state/state.ts", 'import { createServer } from "node:http";', 1],
    ["src/blocks/state/http.ts", 'export { x } from "../../api/http.ts";', 0],
    ["src/components/state/nats.ts", 'import type { S } from "../../blocks/state/port.ts";', 0],
    ["src/components/state/nats.ts", 'import type { S } from "../../blocks/pubsub/port.ts";', 1],
    ["src/components/state/nats.ts", 'import { connect } from "@nats-io/transport-node";', 1],
    ["src/app/http.ts", 'import { x } from "../runtime.ts";', 1],
    ["src/api/http.ts", 'import { x } from "../../mesh/call.ts";', 1],
    ["src/lib/x.ts", '// import { x } from "../runtime.ts";\nconst text = "import";', 0],
  ])("arrows: %s with %j gives %i", (path, text, wanted) => {
    expect(arrowFailures(source(path, text))).toHaveLength(wanted);
  });

  it.each([
    ["const a = Date.now();", 1],
    ["const a = clock.setTimeout(f, 1); clock.setInterval(g, 2);", 0],
    ["setTimeout(f, 1); Math.random();", 2],
    ["// Date.now()\nconst a = 'Date.now()'; /* setTimeout( */ const b = /Date.now/;", 0],
    ["const a = `Date.now() ${`${Date.now()}`} new Date()`;", 1],
    ["const a = new Date(1); const b = new Date();", 1],
  ])("clocks: %j gives %i", (text, wanted) => {
    expect(clockFailures(source("src/api/x.ts", text))).toHaveLength(wanted);
    expect(clockFailures(source("src/lib/x.ts", text))).toEqual([]);
  });

  it.each([
    ["const a: any = 1; f<any>(b as any, c as any[]);", 4],
    ["type A = Record<string, any> | any;", 2],
    ["Promise.any(a); const any = 1; f({ any: 2 }, any); // : any", 0],
  ])("any: %j gives %i", (text, wanted) => {
    expect(anyFailures(source("src/x.ts", text))).toHaveLength(wanted);
  });

  it("module state, servers, sizes, unrun tests and words are seen with their line", () => {
    expect(moduleStateFailures(source("src/x.ts", "const a = 1;\nlet b = 2;\n{\n  let c = 3;\n}"))).toEqual([
      expect.stringMatching(/^src\/x\.ts:2 has mutable module state/),
    ]);
    expect(serverFailures(source("src/app/x.ts", "\ncreateServer()"))).toHaveLength(1);
    expect(serverFailures(source("src/ingress/x.ts", "createServer()"))).toEqual([]);
    expect(sizeFailures(source("a.ts", "x\n".repeat(501)))).toHaveLength(1);
    expect(sizeFailures(source("a.ts", `// Size: one table\n${"x\n".repeat(501)}`))).toEqual([]);
    expect(sizeFailures(source("a.ts", "x".repeat(121)))).toHaveLength(1);
    expect(unrunTestFailures(source("a.test.ts", ["it", 'skip("x", f);'].join(".")))).toHaveLength(1);
    expect(wordFailures("a.md", ["ok\nFIX", "ME py", "pi.org"].join(""))).toHaveLength(2);
  });

  it("versions and block shapes are seen", () => {
    expect(
      versionFailures("package.json", '{"dependencies":{"a":"^1.0.0","b":"1.2.3","c":"latest"}}'),
    ).toHaveLength(2);
    expect(versionFailures("requirements.txt", "# x\na==1.0\nb>=2\n")).toHaveLength(1);
    const shape = ["index.ts", "lock.ts", "http.ts", "grpc.ts", "errors.ts", "README.md"];
    const block = shape.map((name) => `src/blocks/lock/${name}`);
    expect(blockShapeFailures(block)).toEqual([]);
    expect(blockShapeFailures([...block, "src/components/lock/nats.ts"])).toHaveLength(1);
    expect(blockShapeFailures(block.slice(1))).toHaveLength(1);
  });

  it("a file that only a dead file imports is dead too", () => {
    const graph = [
      source("src/main.ts", 'void import("./a.ts");'),
      source("src/a.ts", ""),
      source("src/b.ts", 'import "./c.ts";'),
      source("src/c.ts", ""),
    ];
    expect(unreachable(graph, ["src/main.ts"])).toEqual(["src/b.ts", "src/c.ts"]);
  });
});
