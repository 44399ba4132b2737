/**
 * Finds what was declared for an operation by its path segments, in the way of Dapr: of the segments that are declared
 * side by side the first one that fits is taken for good, so order counts and a short operation hides longer ones.
 */

type Node<T> = {
  readonly segment: string;
  readonly matches: (segment: string) => boolean;
  value: T | undefined;
  readonly children: Node<T>[];
};

/** `T` is what is known of an operation; never undefined. */
export class OperationTree<T> {
  readonly #root: Node<T> = newNode("");

  /** Adds `/a/b*`, `a/*` or `/a/**`; the first declaration of a name stays. */
  add(name: string, value: T): void {
    let node = this.#root;
    for (const segment of segmentsOf(name)) {
      let next = node.children.find((child) => child.segment === segment);
      if (next === undefined) node.children.push((next = newNode(segment)));
      node = next;
    }
    node.value ??= value;
  }

  /** Escapes, dot segments and doubled slashes of a path do not hide it. */
  find(path: string): T | undefined {
    const segments = segmentsOf(plainPath(path));
    let node = this.#root;
    for (const [i, segment] of segments.entries()) {
      const last = i === segments.length - 1;
      const next = node.children.find((child) => fits(child, segment, last));
      if (next === undefined) return undefined;
      node = next;
      if (node.value !== undefined) return node.value;
    }
    return node.children.find(({ segment }) => segment === "*" || segment === "**")?.value;
  }
}

function newNode<T>(segment: string): Node<T> {
  return { segment, matches: matcher(segment), value: undefined, children: [] };
}

/** A lone star stands for the last segment of a path only. */
function fits<T>(node: Node<T>, segment: string, last: boolean): boolean {
  return node.segment === "*" ? last : node.matches(segment);
}

function matcher(pattern: string): (segment: string) => boolean {
  if (!pattern.includes("*")) return (segment) => segment === pattern;
  const parts = pattern.split("*");
  return (segment) => matchesParts(segment, parts);
}

/** Whether the parts come in their order with anything between; linear, whatever a caller sends. */
function matchesParts(text: string, parts: readonly string[]): boolean {
  const first = parts[0]!;
  const last = parts.at(-1)!;
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last))
    return false;
  let from = first.length;
  const end = text.length - last.length;
  for (const part of parts.slice(1, -1)) {
    const at = text.indexOf(part, from);
    if (at < 0 || at + part.length > end) return false;
    from = at + part.length;
  }
  return true;
}

function segmentsOf(name: string): string[] {
  return (name.startsWith("/") ? name.slice(1) : name).split("/");
}

const unplain = /[%?#]|\/\/|(^|\/)\.{1,2}(\/|$)|.\/$/;

/** The path as an app would read it: without query and escapes, resolved. */
function plainPath(path: string): string {
  if (!unplain.test(path)) return path;
  const kept: string[] = [];
  for (const segment of decoded(path.replace(/[?#].*$/s, "")).split("/")) {
    if (segment === "..") kept.pop();
    else if (segment !== "" && segment !== ".") kept.push(segment);
  }
  return `/${kept.join("/")}`;
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
