import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type FileMemory, formatProblem, loadResources } from "./resources.ts";
import { SettingError } from "./setting-error.ts";

const made: string[] = [];
afterAll(() => {
  for (const directory of made) rmSync(directory, { recursive: true });
});

/** A fresh directory holding these files. */
function directory(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), "weft-resources-"));
  made.push(path);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    writeFileSync(join(path, name), text);
  }
  return path;
}

function component(name: string, { type = "state.redis", version = "v1", rest = "" } = {}): string {
  return `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: ${name}}
spec: {type: ${type}, version: "${version}"}
${rest}`;
}

function subscription(name: string, topic: string): string {
  return `apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: ${name}}
spec: {pubsubname: pubsub, topic: ${topic}, route: /x}
`;
}

const shop = { appId: "shop", env: {} };

describe("loadResources", () => {
  it("reads directories in order, their files by name, and no subdirectories", async () => {
    const first = directory({
      "b.yaml": `${component("b1")}---\n${component("b2")}`,
      "a.YML": component("a"),
      "B.yaml": component("upper"),
      "sub/c.yaml": component("hidden"),
    });
    const second = directory({ "0.yml": component("later") });
    const { components, problems } = await loadResources([first, second], shop);
    expect(components.map(({ name }) => name)).toEqual(["upper", "a", "b1", "b2", "later"]);
    expect(components[0]?.origin.file).toBe(join(first, "B.yaml"));
    expect(problems).toEqual([]);
  });

  it("has nothing without directories", async () => {
    expect(await loadResources([], shop)).toEqual({
      components: [],
      held: [],
      subscriptions: [],
      httpEndpoints: [],
      resiliencies: [],
      others: [],
      problems: [],
    });
  });

  it("names files that it does not load", async () => {
    const path = directory({
      "notes.txt": "x",
      ".hidden": "x",
      "bad.yaml": "a: [",
      "good.yaml": component("ok"),
    });
    const { components, problems } = await loadResources([path], shop);
    expect(components.map(({ name }) => name)).toEqual(["ok"]);
    expect(problems.map(formatProblem)).toEqual([
      `${path}/bad.yaml:1:5: not valid YAML: Flow sequence in block collection must be sufficiently ` +
        "indented and end with a ]; check the indentation and the closing brackets",
      `${path}/notes.txt:1:1: the file is not loaded: the name of a resource file must end in .yaml or .yml`,
    ]);
  });

  it("ends the start when a directory is missing", async () => {
    const path = join(directory({}), "none");
    await expect(loadResources([path], shop)).rejects.toThrow(
      new SettingError(
        `failed to load components: open ${path}: no such file or directory ` +
          "(create the directory or correct --resources-path)",
      ),
    );
    const file = join(directory({ "a.yaml": "" }), "a.yaml");
    await expect(loadResources([file], shop)).rejects.toThrow(`open ${file}: not a directory`);
  });

  it("ends the start with Dapr's words when a component name is taken", async () => {
    const path = directory({
      "a.yaml": component("store"),
      "b.yaml": `${component("store", { type: "pubsub.nats", version: "" })}---\n${component("store")}`,
    });
    await expect(loadResources([path], shop)).rejects.toThrow(
      new SettingError(
        "failed to load components: " +
          "duplicate definition of Component name store (pubsub.nats) with existing store (state.redis/v1) " +
          `(${path}/b.yaml:1 and ${path}/a.yaml:1; rename one)\n` +
          "duplicate definition of Component name store (state.redis/v1) with existing store (state.redis/v1) " +
          `(${path}/b.yaml:6 and ${path}/a.yaml:1; rename one)`,
      ),
    );
  });

  it("keeps what is in scope; what is out of scope takes no name but may not repeat one", async () => {
    const mine = component("store", { rest: "scopes: [other, shop]\n" });
    const theirs = component("store", { type: "state.nats", rest: "scopes: [other]\n" });
    const first = await loadResources([directory({ "a.yaml": theirs, "b.yaml": mine })], shop);
    expect(first.components.map(({ type }) => type)).toEqual(["state.redis"]);
    await expect(loadResources([directory({ "a.yaml": mine, "b.yaml": theirs })], shop)).rejects.toThrow(
      "duplicate definition of Component name store (state.nats/v1)",
    );
  });

  it("compares namespaces only when NAMESPACE is set and the resource has one", async () => {
    const path = directory({
      "a.yaml": component("plain"),
      "b.yaml": component("prod").replace("{name: prod}", "{name: prod, namespace: prod}"),
      "c.yaml": component("test").replace("{name: test}", "{name: test, namespace: test}"),
    });
    const names = async (env: Readonly<Record<string, string>>): Promise<string[]> =>
      (await loadResources([path], { appId: "shop", env })).components.map(({ name }) => name);
    expect(await names({})).toEqual(["plain", "prod", "test"]);
    expect(await names({ NAMESPACE: "prod" })).toEqual(["plain", "prod"]);
  });

  it("lets a later subscription of the same name take the place of the earlier", async () => {
    const path = directory({
      "a.yaml": [subscription("one", "t1"), subscription("two", "t2"), subscription("one", "t3")].join(
        "---\n",
      ),
    });
    const { subscriptions } = await loadResources([path], shop);
    expect(subscriptions.map(({ name, topic }) => `${name} ${topic}`)).toEqual(["two t2", "one t3"]);
  });

  it("returns other kinds apart", async () => {
    const text =
      "apiVersion: dapr.io/v1alpha1\nkind: MCPServer\nmetadata: {name: e}\nspec: {endpoint: http://x}\n";
    const { others } = await loadResources([directory({ "e.yaml": text })], shop);
    expect(others).toMatchObject([{ kind: "MCPServer", name: "e", spec: { endpoint: "http://x" } }]);
  });

  it("loads no HTTP endpoint when two share a name, and says where", async () => {
    const endpoint = (name: string): string =>
      `apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: ${name}}\nspec: {baseUrl: http://x}\n`;
    const one = await loadResources([directory({ "e.yaml": `${endpoint("e")}---\n${endpoint("f")}` })], shop);
    expect(one.httpEndpoints!.map(({ name }) => name)).toEqual(["e", "f"]);
    const two = await loadResources([directory({ "a.yaml": endpoint("e"), "b.yaml": endpoint("e") })], shop);
    expect(two.httpEndpoints).toBeUndefined();
    expect(two.problems.map(({ message }) => message)).toEqual([
      expect.stringMatching(
        /^duplicate definition of HTTPEndpoint name e, first in .*a\.yaml:1; no HTTPEndpoint/,
      ),
    ]);
  });
});

describe("files that are read again", () => {
  /** Reads a directory twice: once as it is, once after a change. */
  async function again(
    files: Readonly<Record<string, string>>,
    change: Readonly<Record<string, string | undefined>>,
  ) {
    const path = directory(files);
    const memory: FileMemory = new Map();
    await loadResources([path], shop, memory);
    for (const [name, text] of Object.entries(change)) {
      if (text === undefined) rmSync(join(path, name));
      else writeFileSync(join(path, name), text);
    }
    const { components, problems, held } = await loadResources([path], shop, memory);
    return {
      types: components.map(({ name, type }) => `${name} ${type}`),
      problems: problems.map((problem) => formatProblem(problem).replace(`${path}/`, "")),
      held: held.map((file) => file.replace(`${path}/`, "")),
    };
  }
  const two = `${component("a")}---\n${component("b")}`;
  const broken = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: b";

  it("say nothing twice", async () => {
    const wrong = { "a.yaml": component("a").replace("redis", ""), "b.yaml": broken, "c.txt": "" };
    expect((await again(wrong, {})).problems).toEqual([]);
  });

  it("lose what was deleted", async () => {
    expect(await again({ "a.yaml": two }, { "a.yaml": component("b") })).toEqual({
      types: ["b state.redis"],
      problems: [],
      held: [],
    });
    expect((await again({ "a.yaml": two }, { "a.yaml": undefined })).types).toEqual([]);
  });

  it("keep what stands in a broken document, and take the others", async () => {
    const changed = `${component("a", { type: "state.nats" })}---\n${broken}`;
    const { types, problems, held } = await again({ "a.yaml": two }, { "a.yaml": changed });
    expect([types, held]).toEqual([["a state.nats", "b state.redis"], ["a.yaml"]]);
    expect(problems).toEqual([
      expect.stringMatching(/^a\.yaml:.*; meanwhile Component b stays as it was before$/),
    ]);
  });

  it.each([
    [
      "",
      /^a\.yaml:1:1: the file is empty, delete it to remove what it held; meanwhile Component a, Component b stay/,
    ],
    [
      "apiVersion: da",
      /^a\.yaml:1:1: a document has no kind or apiVersion; meanwhile Component a, Component b stay/,
    ],
    [
      "apiVersion: dapr.io/v1alpha1\nkind: Comp",
      /^a\.yaml:2:1: kind "Comp" is not known.*stay as they were before$/,
    ],
    ["\u0000", /control character.*stay as they were before$/],
  ])("keep everything when they hold %j", async (text, problem) => {
    const { types, problems, held } = await again({ "a.yaml": two }, { "a.yaml": text });
    expect([types, held]).toEqual([["a state.redis", "b state.redis"], ["a.yaml"]]);
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  it("lose what was commented out", async () => {
    expect((await again({ "a.yaml": two }, { "a.yaml": "# later\n" })).types).toEqual([]);
  });

  it("take a whole manifest of another program for what it is", async () => {
    const foreign = "apiVersion: v1\nkind: ConfigMap\n";
    expect((await again({ "a.yaml": two }, { "a.yaml": foreign })).types).toEqual([]);
  });
});
