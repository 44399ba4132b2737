// The reference of components: a page for each component file and an index, made of what the file says about itself.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { categoryOf, findCategory, sharedFieldsOf } from "../src/components/categories.ts";
import type { ComponentFile, MetadataField } from "../src/components/component.ts";
import { root } from "./command.ts";

/** A component file and where it stands. */
export interface ComponentSource {
  /** From the root of the checkout. */
  readonly path: string;
  readonly file: Omit<ComponentFile, "open">;
}

/** Folder of the pages, from the root of the checkout. Nothing else may stand in it. */
export const pagesFolder = "docs/components";

/** Page by path, the index first. */
export function renderPages(sources: readonly ComponentSource[]): { path: string; text: string }[] {
  const sorted = sources.toSorted((a, b) => (a.file.type < b.file.type ? -1 : 1));
  const pages = sorted.map((source) => ({ path: pageOf(source), text: renderPage(source) }));
  return [{ path: `${pagesFolder}/README.md`, text: renderIndex(sorted) }, ...pages];
}

function pageOf({ file }: ComponentSource): string {
  return `${pagesFolder}/${file.type}.md`;
}

const generated = "Made by `npm run gen`; to change it, change the component's file.";

function renderIndex(sources: readonly ComponentSource[]): string {
  const lines = ["# Components", "", `Every component type of this build. ${generated}`, ""];
  lines.push("| Type | Versions | Capabilities |", "|---|---|---|");
  for (const { file } of sources) {
    const capabilities = file.capabilities.join(", ");
    lines.push(`| [${file.type}](${file.type}.md) | ${file.versions.join(", ")} | ${capabilities} |`);
  }
  lines.push("", "[Adding a component](../adding-a-component.md) takes one file.", "");
  return lines.join("\n");
}

function renderPage(source: ComponentSource): string {
  const { path, file } = source;
  const rows: [string, string][] = [
    ["Versions", versionsOf(file)],
    ["Other names", (file.aliases ?? []).map(code).join(", ")],
    ["Capabilities", file.capabilities.join(", ")],
    ["Source", `[${path}](../../${path})`],
  ];
  const lines = [`# ${file.type}`, "", ...headOf(path), "", "| | |", "|---|---|"];
  for (const [name, text] of rows) if (text !== "") lines.push(`| ${name} | ${text} |`);
  lines.push("", "```yaml", ...exampleOf(file), "```", "");
  const fields = Object.entries(file.metadataSchema);
  if (fields.length > 0) {
    lines.push("## Metadata", "", "| Name | Value | Default | |", "|---|---|---|---|");
    for (const [name, field] of fields) lines.push(fieldRow(name, field));
    lines.push("");
  }
  const category = categoryOf(file.type);
  const shared = sharedFieldsOf(category);
  if (shared.length > 0) {
    const word = findCategory(file.type)?.word ?? category;
    lines.push(`Every ${word} may have ${shared.map(code).join(", ")} too.`, "");
  }
  lines.push(`Names of fields match in any letter case. ${generated}`, "");
  return lines.join("\n");
}

/** Unversioned types take three spellings. */
function versionsOf({ versions }: Omit<ComponentFile, "open">): string {
  return versions.length === 1 && versions[0] === "v1"
    ? "`v1`, also `v0` or none"
    : `${versions.map(code).join(", ")}; ${code(versions[0]!)} when none is given`;
}

/** The comment at the head of the file, which says what the component is. */
function headOf(path: string): string[] {
  const text = readFileSync(join(root, path), "utf8");
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1];
  if (comment === undefined) throw new Error(`${path}:1 has no comment /** … */ that says what it is`);
  const lines = comment.split("\n").map((line) => line.replace(/^\s*\* ?/, "").trimEnd());
  const kept = lines.filter((line) => !line.startsWith("Size:"));
  const begin = kept.findIndex((line) => line !== "");
  const end = kept.findLastIndex((line) => line !== "") + 1;
  // Markdown wants a blank line before a list.
  return kept
    .slice(begin, end)
    .flatMap((line, index, all) =>
      line.startsWith("- ") && !/^(- |  |$)/.test(all[index - 1] ?? "") ? ["", line] : [line],
    );
}

const nameOf: Readonly<Record<string, string>> = {
  state: "statestore",
  pubsub: "pubsub",
  secretstores: "vault",
};

function exampleOf(file: Omit<ComponentFile, "open">): string[] {
  const category = categoryOf(file.type);
  const required = Object.entries(file.metadataSchema).filter(([, field]) => field.required === true);
  const lines = [
    "apiVersion: dapr.io/v1alpha1",
    "kind: Component",
    "metadata:",
    `  name: ${nameOf[category] ?? file.type.slice(file.type.lastIndexOf(".") + 1)}`,
    "spec:",
    `  type: ${file.type}`,
    `  version: ${file.versions[0]}`,
  ];
  if (required.length > 0) lines.push("  metadata:");
  for (const [name, field] of required) {
    lines.push(`  - name: ${name}`, `    value: ${JSON.stringify(sampleOf(field))}`);
  }
  return lines;
}

function sampleOf(field: MetadataField): string {
  if (field.default !== undefined) return field.default;
  if (field.oneOf?.[0] !== undefined) return field.oneOf[0];
  const samples = { string: "…", boolean: "true", integer: "10", number: "10", duration: "30s" };
  return samples[field.kind];
}

function fieldRow(name: string, field: MetadataField): string {
  const names = [name, ...(field.aliases ?? [])].map(code).join(", ");
  const fallback = field.default === undefined ? "" : code(field.default);
  const cells = [names, valueOf(field), field.required === true ? "required" : fallback, field.description];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
}

function valueOf({ kind, oneOf, min, max, secret }: MetadataField): string {
  const kinds = {
    string: "text",
    boolean: "true or false",
    integer: "whole number",
    number: "number",
    duration: "time",
  };
  const bounds = [min === undefined ? "" : `from ${min}`, max === undefined ? "" : `to ${max}`];
  const words = [oneOf === undefined ? kinds[kind] : oneOf.map(code).join(", "), ...bounds];
  return `${words.filter((word) => word !== "").join(" ")}${secret === true ? ", secret" : ""}`;
}

function code(text: string): string {
  return text === "" ? '""' : `\`${text}\``;
}
