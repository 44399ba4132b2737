// What the tidy rules look at: the files of the checkout, each with its comments and its literals blanked out, so
// that a rule can match code by a plain expression and still name the right line.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** One text file. The three forms have the same length and the same line breaks. */
export interface Source {
  /** Path from the root of the checkout, with `/`. */
  readonly path: string;
  readonly text: string;
  /** `text` with comments as blanks; strings are kept, so imports can be read. */
  readonly withoutComments: string;
  /** `text` with comments and the contents of strings, templates and regular expressions as blanks. */
  readonly code: string;
}

export interface Import {
  /** As written, e.g. `../lib/hash.ts`, `node:http`, `@nats-io/jetstream`. */
  readonly specifier: string;
  /** Path from the root of the checkout for a relative import, otherwise undefined. */
  readonly target: string | undefined;
  readonly line: number;
}

const maxTextBytes = 2_000_000;

/** Every file that git tracks or would add, sorted; without git (an unpacked archive) every file but the ignored. */
export function listFiles(root: string): string[] {
  const git = spawnSync("git", ["ls-files", "-co", "--exclude-standard", "-z"], {
    cwd: root,
    encoding: "utf8",
  });
  const listed = git.status === 0 ? git.stdout.split("\0").filter((path) => path !== "") : walk(root, "");
  return [...new Set(listed)].filter((path) => existsSync(join(root, path))).sort();
}

function walk(root: string, folder: string): string[] {
  const ignored = new Set([".git", "node_modules", "dist", ".cache", "coverage", "__pycache__"]);
  const found: string[] = [];
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    if (ignored.has(entry.name)) continue;
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) found.push(...walk(root, path));
    else if (entry.isFile()) found.push(path);
  }
  return found;
}

/** Text of a file; empty for binary and for very large ones. */
export function readText(root: string, path: string): string {
  const file = join(root, path);
  if (statSync(file).size > maxTextBytes) return "";
  const text = readFileSync(file, "utf8");
  return text.includes("\0") ? "" : text;
}

export function makeSource(path: string, text: string): Source {
  return { path, text, ...blank(text) };
}

/** Number of the line, from 1, on which the character at `offset` stands. */
export function lineAt(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < offset; at = text.indexOf("\n", at + 1)) line += 1;
  return line;
}

const importForms = [
  /\b(?:import|export)\s[^"';()]*?\bfrom\s*["']([^"']+)["']/g,
  /\bimport\s*["']([^"']+)["']/g,
  /\bimport\s*\(\s*["']([^"']+)["']/g,
  /\bnew\s+URL\s*\(\s*["'](\.[^"']+)["']\s*,\s*import\.meta\.url/g,
];

/** All imports of a file in any form: static, re-export, dynamic, and files named relative to `import.meta.url`. */
export function importsOf(source: Source): Import[] {
  const found: Import[] = [];
  for (const form of importForms) {
    for (const match of source.withoutComments.matchAll(form)) {
      const specifier = match[1] ?? "";
      const target = specifier.startsWith(".") ? resolvePath(source.path, specifier) : undefined;
      found.push({ specifier, target, line: lineAt(source.text, match.index) });
    }
  }
  return found;
}

function resolvePath(from: string, specifier: string): string {
  const parts = from.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}

/**
 * A scanner that knows comments, strings, templates with their `${}` and regular expressions; a regular expression is
 * told from a division by what stands before it.
 */
function blank(text: string): { withoutComments: string; code: string } {
  const withoutComments = [...text.split("")];
  const code = [...withoutComments];
  const clear = (target: string[], from: number, to: number): void => {
    for (let at = from; at < to; at++) if (target[at] !== "\n") target[at] = " ";
  };
  // Depth of braces at which each open template goes on.
  const templates: number[] = [];
  let depth = 0;
  let at = 0;
  while (at < text.length) {
    const end = literalEnd(text, at);
    if (end !== undefined) {
      if (end.comment) clear(withoutComments, at, end.to);
      clear(code, end.comment ? at : at + 1, end.comment ? end.to : end.to - 1);
      at = end.to;
      continue;
    }
    const character = text[at];
    if (character === "{") depth += 1;
    const resumes = character === "}" && templates.at(-1) === depth;
    if (character === "}" && !resumes) depth -= 1;
    if (resumes) templates.pop();
    if (character === "`" || resumes) {
      const { to, hole } = templateEnd(text, at + 1);
      clear(code, at + 1, hole ? to - 2 : to - 1);
      if (hole) templates.push(depth);
      at = to;
      continue;
    }
    at += 1;
  }
  return { withoutComments: withoutComments.join(""), code: code.join("") };
}

function literalEnd(text: string, at: number): { to: number; comment: boolean } | undefined {
  const two = text.slice(at, at + 2);
  if (two === "//") return { to: endOr(text, text.indexOf("\n", at)), comment: true };
  if (two === "/*") return { to: endOr(text, text.indexOf("*/", at + 2), 2), comment: true };
  const character = text[at];
  if (character === '"' || character === "'") return { to: quotedEnd(text, at, character), comment: false };
  if (character === "/" && startsRegExp(text, at)) return { to: regExpEnd(text, at), comment: false };
  return undefined;
}

function endOr(text: string, found: number, length = 0): number {
  return found === -1 ? text.length : found + length;
}

function quotedEnd(text: string, from: number, quote: string): number {
  for (let at = from + 1; at < text.length; at++) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === quote || text[at] === "\n") return at + 1;
  }
  return text.length;
}

function regExpEnd(text: string, from: number): number {
  let inClass = false;
  for (let at = from + 1; at < text.length; at++) {
    const character = text[at];
    if (character === "\\") at += 1;
    else if (character === "[") inClass = true;
    else if (character === "]") inClass = false;
    else if (character === "\n" || (character === "/" && !inClass)) return at + 1;
  }
  return text.length;
}

function templateEnd(text: string, from: number): { to: number; hole: boolean } {
  for (let at = from; at < text.length; at++) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "`") return { to: at + 1, hole: false };
    else if (text[at] === "$" && text[at + 1] === "{") return { to: at + 2, hole: true };
  }
  return { to: text.length, hole: false };
}

function startsRegExp(text: string, at: number): boolean {
  const before = text.slice(Math.max(0, at - 40), at).trimEnd();
  if (before === "") return true;
  if (/\b(return|typeof|case|in|of|void|delete|throw|await|yield)$/.test(before)) return true;
  return /[=(,[!&|?{};:+\-*%~^<>]$/.test(before);
}
