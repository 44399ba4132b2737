// Reads a Markdown page as the docs tests need it: links, inline code, fenced blocks and headings, each with its line.

export type Link = { readonly target: string; readonly line: number };
export type InlineCode = { readonly text: string; readonly line: number };
/** `language` is the first word after the fence. `line` is that of the fence. */
export type Fence = { readonly language: string; readonly text: string; readonly line: number };

export type Page = {
  /** From the root of the checkout, with `/`. */
  readonly path: string;
  readonly links: readonly Link[];
  readonly codes: readonly InlineCode[];
  readonly fences: readonly Fence[];
  /** Names by which `#…` reaches a heading, as GitHub makes them. */
  readonly anchors: ReadonlySet<string>;
};

export function readPage(path: string, text: string): Page {
  const { fences, rest } = takeFences(text);
  const codes: InlineCode[] = [];
  const prose = rest.replace(/(`+)([^`]+)\1/g, (whole, _marks: string, code: string, at: number) => {
    codes.push({ text: code.trim(), line: lineAt(rest, at) });
    return whole.replace(/[^\n]/g, " ");
  });
  return { path, links: findLinks(prose), codes, fences, anchors: findAnchors(rest) };
}

/** Fenced blocks, and the text with blank lines in their place. A fence may be indented, as in a list. */
function takeFences(text: string): { fences: Fence[]; rest: string } {
  const fences: Fence[] = [];
  const rest: string[] = [];
  let open: { indent: string; marks: string; language: string; line: number; lines: string[] } | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    const fence = /^( *)(`{3,}|~{3,})\s*([\w-]*)/.exec(line);
    if (open === undefined && fence !== null) {
      const [, indent = "", marks = "", language = ""] = fence;
      open = { indent, marks, language, line: i + 1, lines: [] };
    } else if (open !== undefined && line.trim() === open.marks) {
      fences.push({ language: open.language, text: open.lines.join("\n"), line: open.line });
      open = undefined;
    } else if (open !== undefined) {
      open.lines.push(line.startsWith(open.indent) ? line.slice(open.indent.length) : line);
    } else {
      rest.push(line);
      continue;
    }
    rest.push("");
  }
  if (open !== undefined) throw new Error(`line ${open.line}: the block is never closed`);
  return { fences, rest: rest.join("\n") };
}

const linkForms = [
  /\[(?:[^[\]]|\[[^\]]*\])*\]\(<?([^()\s<>]+)>?(?:\s+"[^"]*")?\)/g,
  /^ {0,3}\[[^\]]+\]:\s*(\S+)/gm,
  /<(?:a|img)\s[^>]*?(?:href|src)="([^"]+)"/g,
];

function findLinks(prose: string): Link[] {
  return linkForms.flatMap((form) =>
    [...prose.matchAll(form)].map((match) => ({ target: match[1] ?? "", line: lineAt(prose, match.index) })),
  );
}

function findAnchors(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ""] of text.matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm)) {
    const slug = heading
      .toLowerCase()
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .replace(/[^\p{L}\p{N}\s_-]/gu, "")
      .replace(/\s/g, "-");
    let name = slug;
    for (let n = 1; anchors.has(name); n++) name = `${slug}-${n}`;
    anchors.add(name);
  }
  for (const [, name = ""] of text.matchAll(/<a\s[^>]*?(?:name|id)="([^"]+)"/g)) anchors.add(name);
  return anchors;
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
