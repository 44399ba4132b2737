import fc from "fast-check";
import { expect, test } from "vitest";
import { OperationTree } from "./operation-tree.ts";

/** What a tree of these names finds for a path: the name. */
function found(names: readonly string[], path: string): string | undefined {
  const tree = new OperationTree<string>();
  for (const name of names) tree.add(name, name);
  return tree.find(path);
}

const table: readonly (readonly [names: readonly string[], path: string, found: string | undefined])[] = [
  [["/orders"], "/orders", "/orders"],
  [["orders"], "/orders", "orders"],
  [["/orders"], "orders", "/orders"],
  [["/orders"], "/orders/1/items", "/orders"],
  [["/orders"], "/order", undefined],
  [["/orders"], "/ordersx", undefined],
  [["/a/b"], "/a", undefined],
  [["/a", "/a/b"], "/a/b", "/a"],
  [["/a/b", "/a"], "/a/c", "/a"],
  [["/a/b", "/a"], "/a/b", "/a"],
  [["/a/b", "/a"], "/a", "/a"],
  [["/a/*"], "/a", "/a/*"],
  [["/a/*"], "/a/b", "/a/*"],
  [["/a/*"], "/a/b/c", undefined],
  [["/a/**"], "/a", "/a/**"],
  [["/a/**"], "/a/b/c/d", "/a/**"],
  [["/**"], "/", "/**"],
  [["/*"], "/", "/*"],
  [["/*/b"], "/a/b", undefined],
  [["/or*"], "/orders", "/or*"],
  [["/or*"], "/orders/1", "/or*"],
  [["/*ers"], "/orders", "/*ers"],
  [["/o*d*s"], "/orders", "/o*d*s"],
  [["/o*d*d*s"], "/orders", undefined],
  [["/or*", "/orders/1"], "/orders/1", "/or*"],
  [["/orders/1", "/or*"], "/orders/1", "/orders/1"],
  [["/orders/1", "/or*"], "/orders/2", undefined],
  [["/admin"], "/%61dmin", "/admin"],
  [["/admin"], "/x/../admin", "/admin"],
  [["/admin"], "//admin", "/admin"],
  [["/admin"], "/./admin/", "/admin"],
  [["/admin"], "/admin?x", "/admin"],
  [["/admin"], "/x%2f..%2fadmin", "/admin"],
  [["/pkg.Svc/Method"], "/pkg.Svc/Method", "/pkg.Svc/Method"],
];

test.for(table)("%j and %s: %s", ([names, path, wanted]) => {
  expect(found(names, path)).toBe(wanted);
});

test("of two operations with one name the first stays", () => {
  const tree = new OperationTree<number>();
  tree.add("/a", 1);
  tree.add("a", 2);
  expect(tree.find("/a")).toBe(1);
});

test("a segment with stars fits what an expression would", () => {
  const word = fc.string({ unit: fc.constantFrom("a", "b", "*"), minLength: 1, maxLength: 6 });
  const text = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(word, text, (pattern, segment) => {
      if (/^\*+$/.test(pattern)) return;
      const expression = new RegExp(`^${pattern.replaceAll("*", ".*")}$`);
      expect(found([pattern], segment) !== undefined).toBe(expression.test(segment));
    }),
  );
});
