// What the pages say is held against the tree: links, paths, flags, variables, commands, resources and error codes.
import { existsSync, statSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { listFiles, readText } from "../../scripts/tidy/source.ts";
import { parseResources } from "../../src/config/parse-resources.ts";
import { formatProblem } from "../../src/config/problem.ts";
import { CommandChecker, commandLines, weftdFlags } from "./commands.ts";
import { catalogueRows, codeLiterals, rowKey, type ErrorRow } from "./error-codes.ts";
import { readPage, type Fence, type Page } from "./markdown.ts";

const root = join(import.meta.dirname, "..", "..");
const files = listFiles(root);
const pages = files
  .filter((path) => path.endsWith(".md"))
  .map((path) => readPage(path, readText(root, path)));
/** Pages that speak of the tree as it is now; the others also tell what was. */
const current = pages.filter(({ path }) => !/^(CHANGELOG\.md$|docs\/decisions\/)/.test(path));

function page(path: string): Page {
  const found = pages.find((candidate) => candidate.path === path);
  if (found === undefined) throw new Error(`${path} is missing`);
  return found;
}

function expectNone(failures: readonly string[]): void {
  if (failures.length > 0) expect.fail(`${failures.length} to mend:\n  ${failures.join("\n  ")}`);
}

describe("links", () => {
  test("every relative link reaches a file, every anchor a heading", () => {
    expectNone(
      pages.flatMap((from) => from.links.flatMap(({ target, line }) => linkFailures(from, target, line))),
    );
  });

  function linkFailures(from: Page, target: string, line: number): string[] {
    if (/^[a-z][a-z+.-]*:/i.test(target)) return [];
    const [file = "", anchor] = target.split("#");
    const path = file === "" ? from.path : posix.join(dirname(from.path), decodeURI(file));
    const at = `${from.path}:${line} links to ${target}`;
    if (path.startsWith("..")) return [`${at}, which is outside of the checkout`];
    if (!existsSync(join(root, path))) return [`${at}, which does not exist`];
    if (anchor === undefined || !path.endsWith(".md")) return [];
    return page(path).anchors.has(anchor) ? [] : [`${at}, but ${path} has no such heading`];
  }

  test("every page can be reached from the README by links", () => {
    const seen = new Set<string>();
    const open = ["README.md"];
    for (let path = open.pop(); path !== undefined; path = open.pop()) {
      if (seen.has(path) || !pages.some((candidate) => candidate.path === path)) continue;
      seen.add(path);
      for (const { target } of page(path).links)
        open.push(posix.join(dirname(path), target.split("#")[0] ?? ""));
    }
    expect(pages.map(({ path }) => path).filter((path) => !seen.has(path))).toEqual([]);
  });
});

describe("names in the text", () => {
  const codes = current.flatMap(({ path, codes: found }) => found.map((code) => ({ path, ...code })));

  test("paths exist", () => {
    const inTree = /^(?:\.ci|bin|deploy|docs|examples|mesh|proto|scripts|src|test)\/[\w./-]*$/;
    const missing = codes.filter(({ text }) => inTree.test(text) && !existsSync(join(root, text)));
    expectNone(missing.map(({ path, line, text }) => `${path}:${line} names ${text}, which does not exist`));
  });

  test("flags are flags of weftd or of our commands", () => {
    const others = new Set([
      "once",
      "write",
      "check",
      "help",
      "ignore-scripts",
      "project",
      "seconds",
      "rounds",
      "pubsub",
      "namespace",
      "all",
    ]);
    const known = (name: string): boolean =>
      name.endsWith("-")
        ? [...weftdFlags].some((flag) => flag.startsWith(name))
        : weftdFlags.has(name) || others.has(name);
    const flags = codes.flatMap((code) => {
      const name = /^--([\w-]+)/.exec(code.text)?.[1];
      return name === undefined ? [] : [{ ...code, name }];
    });
    expect(flags.length).toBeGreaterThan(10);
    expectNone(
      flags
        .filter(({ name }) => !known(name))
        .map(({ path, line, name }) => `${path}:${line}: no flag --${name}`),
    );
  });

  test("environment variables of ours are read somewhere", () => {
    const text = files
      .filter((path) => /\.(ts|mjs)$|^bin\//.test(path))
      .map((path) => readText(root, path))
      .join("\n");
    const unread = codes.filter((code) => /^WEFT_[A-Z_]+$/.test(code.text) && !text.includes(code.text));
    expectNone(unread.map(({ path, line, text: name }) => `${path}:${line}: nothing reads ${name}`));
  });
});

describe("blocks of code", () => {
  const blocks = (language: string): (Fence & { path: string })[] =>
    current
      .flatMap(({ path, fences }) => fences.map((fence) => ({ path, ...fence })))
      .filter((it) => it.language === language);

  test("resources in YAML are read without a problem", () => {
    const resources = blocks("yaml").filter(({ text }) => /^kind:/m.test(text));
    expectNone(
      resources.flatMap(({ path, line, text }) =>
        parseResources(text, path).problems.map(
          (problem) => `block of line ${line}: ${formatProblem(problem)}`,
        ),
      ),
    );
  });

  test("commands name scripts, files, subcommands and flags that exist", async () => {
    const checker = await CommandChecker.open(root);
    // Blocks without a language hold diagrams and outputs, too: those match no command of ours.
    const fences = [...blocks("sh"), ...blocks("")];
    const failures = fences.flatMap((fence) =>
      commandLines(fence).flatMap((command) => {
        const problem = checker.problem(command);
        return problem === undefined
          ? []
          : [`${fence.path}:${command.line} ${command.words.join(" ")}: ${problem}`];
      }),
    );
    expect(blocks("sh").flatMap(commandLines).length).toBeGreaterThan(5);
    expectNone(failures);
  });

  test("the README names the commands for trying and for testing", () => {
    const commands = page("README.md")
      .fences.filter(({ language }) => language === "sh")
      .flatMap(commandLines);
    const texts = commands.map(({ words }) => words.join(" "));
    expect(texts).toEqual(expect.arrayContaining(["npm run quickstart", "npm test"]));
  });
});

describe("errors", () => {
  let made: ErrorRow[];
  let written: ErrorRow[];

  beforeAll(async () => {
    made = await catalogueRows(root);
    const rows = readText(root, "docs/errors.md").matchAll(/^\| `(ER[A-Z_]+)` \| (\d{3}) \| (\w+) \|/gm);
    written = [...rows].map(([, code = "", httpStatus = "", grpc = ""]) => ({ code, httpStatus, grpc }));
  });

  test("what the blocks answer stands in docs/errors.md, with status and gRPC code", () => {
    expect(made.length).toBeGreaterThan(20);
    const known = new Set(written.map(rowKey));
    expectNone(
      made.filter((row) => !known.has(rowKey(row))).map((row) => `docs/errors.md lacks ${rowKey(row)}`),
    );
  });

  test("every other code of the API stands there too", () => {
    const known = new Set(written.map(({ code }) => code));
    expectNone(
      [...codeLiterals(root)]
        .filter((code) => !known.has(code))
        .map((code) => `docs/errors.md lacks ${code}`),
    );
  });

  test("nothing stands there that the code does not answer", () => {
    const makes = new Set(made.map(rowKey));
    const catalogued = new Set(made.map(({ code }) => code));
    // A code may be answered by a block and, with another status, by what is no block.
    const literals = new Set([...codeLiterals(root, "no catalogue"), "ERROR"]);
    const everywhere = codeLiterals(root);
    const stale = written.filter((row) => {
      if (makes.has(rowKey(row)) || literals.has(row.code)) return false;
      return catalogued.has(row.code) || !everywhere.has(row.code);
    });
    expectNone(stale.map((row) => `docs/errors.md has ${rowKey(row)}, which nothing answers`));
  });

  test("the codes between sidecars stand in mesh/README.md", () => {
    const union = /export type MeshErrorCode =([^;]+);/.exec(readText(root, "mesh/errors.ts"))?.[1] ?? "";
    const codes = [...union.matchAll(/"([a-z-]+)"/g)].map((match) => match[1] ?? "");
    const named = new Set(page("mesh/README.md").codes.map(({ text }) => text));
    expect(codes.length).toBeGreaterThan(5);
    expect(codes.filter((code) => !named.has(code))).toEqual([]);
  });
});

describe("decisions", () => {
  const decisions = pages.map(({ path }) => path).filter((path) => path.startsWith("docs/decisions/"));

  // Numbers are given out before pages are written, so some may be missing.
  test("have a number each and are listed on the first page", () => {
    const numbers = decisions.map((path) => Number(/\/(\d{4})-[a-z0-9-]+\.md$/.exec(path)?.[1]));
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    expect(numbers[0]).toBe(1);
    const listed = new Set(
      page(decisions[0]!).links.map(({ target }) => posix.join("docs/decisions", target)),
    );
    expect(decisions.slice(1).filter((path) => !listed.has(path))).toEqual([]);
  });

  test("have all five parts and stay short", () => {
    const parts = ["Context", "Decision", "Why", "What follows", "Would change our mind"];
    const failures = decisions.flatMap((path) => {
      const text = readText(root, path);
      const missing = parts.filter((part) => !text.includes(`**${part}.**`));
      const problems = missing.map((part) => `${path} lacks "${part}."`);
      if (text.split("\n").length > 80) problems.push(`${path} is longer than 80 lines`);
      return problems;
    });
    expectNone(failures);
  });
});

test("the README is one page", () => {
  expect(statSync(join(root, "README.md")).size).toBeLessThan(10_000);
});
