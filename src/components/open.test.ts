import { beforeEach, describe, expect, it, vi } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { silentLog } from "../../test/contract/silent-log.ts";
import type { ComponentResource } from "../config/kinds/component.ts";
import { type ComponentFile, CreationError, MetadataError } from "./component.ts";
import type { ComponentEntry } from "./index.gen.ts";
import { noMetrics } from "../telemetry/metrics.ts";
import { openComponents, type ComponentsInit } from "./open.ts";

type Port = { close(): Promise<void> };

/** How the state component of this test opens. */
let openState: (context?: unknown) => Promise<unknown>;

const entries: readonly ComponentEntry[] = [
  entry({
    type: "secretstores.fake",
    metadataSchema: { answer: { kind: "string", description: "What every secret holds." } },
    open: ({ metadata }: { metadata: { answer: string } }) =>
      Promise.resolve({
        get: (name: string) =>
          name === "broken"
            ? Promise.reject(new Error("no access"))
            : Promise.resolve({ [name]: metadata.answer }),
        close: () => Promise.resolve(),
      }),
  }),
  entry({
    type: "state.fake",
    metadataSchema: { password: { kind: "string", description: "" } },
    open: (context: unknown) => openState(context),
  }),
];

function entry(file: Pick<ComponentFile, "type" | "metadataSchema" | "open">): ComponentEntry {
  return {
    type: file.type,
    load: () => Promise.resolve({ ...file, versions: ["v1"], capabilities: ["ETAG"] }),
  };
}

const clock = manualClock();
let warned: string[];
let failed: string[];
beforeEach(() => {
  warned = [];
  failed = [];
  openState = () => Promise.resolve({ close: () => Promise.resolve() });
});

function component(change: Partial<ComponentResource> = {}): ComponentResource {
  return {
    kind: "Component",
    name: "store",
    namespace: undefined,
    type: "state.fake",
    version: "v1",
    metadata: [],
    initTimeoutMs: 1000,
    ignoreErrors: false,
    scopes: [],
    secretStore: undefined,
    origin: { file: "store.yaml", line: 3, column: 1 },
    typeOrigin: { file: "store.yaml", line: 7, column: 1 },
    ...change,
  };
}

function open(
  resources: readonly ComponentResource[],
  deny: readonly string[] = [],
  check: NonNullable<ComponentsInit["check"]> = () => {},
): ReturnType<typeof openComponents> {
  const log: typeof silentLog = {
    ...silentLog,
    warn: (text) => void warned.push(text),
    error: (text) => void failed.push(text),
    scope: () => log,
  };
  const options = { appId: "app", namespace: "default" } as ComponentsInit["options"];
  const mesh = undefined as unknown as ComponentsInit["mesh"];
  const wanted = { resources, deny, strictWasm: false };
  return openComponents({ options, wanted, mesh, clock, log, metrics: noMetrics, env: {}, entries, check });
}

const names = (opened: Awaited<ReturnType<typeof openComponents>>): string[] =>
  opened.list().map(({ resource }) => resource.name);

describe("a component that opens after its init timeout", () => {
  /** Starts, lets the time pass while `open` works, and gives the end of the start and of `open` to the test. */
  async function overrun(): Promise<PromiseWithResolvers<Port>> {
    const opening = Promise.withResolvers<Port>();
    const asked = Promise.withResolvers<void>();
    openState = () => {
      asked.resolve();
      return opening.promise;
    };
    const outcome = open([component()]).catch((error: unknown) => String(error));
    await asked.promise;
    clock.advance(1000);
    expect(await outcome).toMatch(
      /raise spec\.initTimeout.*\)\ninit timeout for component store \(state\.fake\/v1\)$/,
    );
    return opening;
  }

  it("is closed", async () => {
    const opening = await overrun();
    const closed = Promise.withResolvers<void>();
    opening.resolve({ close: async () => closed.resolve() });
    await closed.promise;
  });

  it("is logged when it cannot be closed", async () => {
    const opening = await overrun();
    opening.resolve({ close: () => Promise.reject(new Error("stuck")) });
    await vi.waitFor(() =>
      expect(warned).toEqual(["store (state.fake/v1), which opened too late, cannot be closed: stuck"]),
    );
  });

  it("may also fail late", async () => {
    const opening = await overrun();
    opening.reject(new Error("aborted"));
    await vi.waitFor(() => expect(warned).toEqual([]));
  });
});

it("a component that throws at once fails the start and leaves no timer", async () => {
  openState = () => {
    throw new Error("no");
  };
  await expect(open([component()])).rejects.toThrow("no (store.yaml:3)");
});

describe("a component that refers to a secret", () => {
  const item = { name: "password", value: undefined, envRef: undefined, origin: component().origin };
  const needy = (name: string, secret = "s", store: string | undefined = "vault"): ComponentResource =>
    component({
      name,
      metadata: [{ ...item, secretKeyRef: { name: secret, key: "" } }],
      secretStore: store || undefined,
    });
  const vault = (name: string, answer: string, change: Partial<ComponentResource> = {}): ComponentResource =>
    component({
      name,
      type: "secretstores.fake",
      metadata: [{ ...item, name: "answer", value: answer, secretKeyRef: undefined }],
      ...change,
    });
  const secretOf = (opened: Awaited<ReturnType<typeof openComponents>>, name: string): string | undefined =>
    opened.get("state", name)?.properties["password"];

  it("gets it from a store that stands in a later file", async () => {
    const opened = await open([needy("a"), vault("vault", '"quoted"'), needy("b")]);
    expect(names(opened)).toEqual(["vault", "a", "b"]);
    expect([secretOf(opened, "a"), secretOf(opened, "b")]).toEqual(["quoted", "quoted"]);
    expect(warned).toEqual([]);
  });

  it("waits for a store that nobody loads, and the others do not wait for it", async () => {
    const opened = await open([needy("a"), component({ name: "b" })]);
    expect(names(opened)).toEqual(["b"]);
    expect(warned).toEqual([
      "store.yaml:3: component a (state.fake/v1) waits for secret store vault, which is not loaded; " +
        "add that component or correct auth.secretStore",
    ]);
  });

  it("may be a secret store that waits for a later one", async () => {
    const metadata = [{ ...item, name: "answer", secretKeyRef: { name: "s", key: "" } }];
    const outer = vault("outer", "", { metadata, secretStore: "inner" });
    const opened = await open([needy("a", "s", "outer"), outer, vault("inner", "deep")]);
    expect(names(opened)).toEqual(["inner", "outer", "a"]);
    expect(secretOf(opened, "a")).toBe("deep");
  });

  it("is opened without it when no store is named or the lookup fails", async () => {
    const opened = await open([vault("vault", "x"), needy("a", "s", ""), needy("b", "broken")]);
    expect([secretOf(opened, "a"), secretOf(opened, "b")]).toEqual(["", ""]);
    expect(warned).toEqual([
      "store.yaml:3: a (state.fake/v1): password refers to a secret but auth.secretStore is not set",
      "store.yaml:3: b (state.fake/v1): getting secret broken from vault failed: no access",
    ]);
  });

  it("lets other resources read secrets by the same stores", async () => {
    const { secrets } = await open([vault("vault", "x")]);
    expect(await secrets.readSecret("vault", "s", {})).toEqual({ s: "x" });
    expect(await secrets.readSecret("attic", "s", {})).toBeUndefined();
  });
});

describe("words of a failure", () => {
  const failing = { init: "[INIT_COMPONENT_FAILURE]", create: "[CREATE_COMPONENT_FAILURE]" };
  const what = "initialization error occurred for store (state.fake/v1)";

  it("of open", async () => {
    openState = () => Promise.reject(new Error("no"));
    const nested = `${failing.init}: ${what}: ${failing.init}: ${what}: no (store.yaml:3)`;
    await expect(open([component()])).rejects.toThrow(`process component store error: ${nested}`);
  });

  it.each([
    [
      { type: "state.fakr" },
      "couldn't find state store state.fakr/v1 (store.yaml:7; did you mean state.fake?)",
    ],
    [{ version: "v7" }, "couldn't find state store state.fake/v7 (store.yaml:7; versions: v1)"],
    [{ type: "secretstores.Safe" }, "couldn't find secret store secretstores.Safe/v1"],
  ])("of %j", async (change, text) => {
    const resource = component(change);
    const label = `initialization error occurred for store (${resource.type}/${resource.version})`;
    const nested = `${failing.init}: ${label}: ${failing.create}: ${label}: ${text}`;
    await expect(open([resource])).rejects.toThrow(`process component store error: ${nested}`);
  });

  it("is not heard for a type and a version in another case", async () => {
    expect(names(await open([component({ type: "state.Fake", version: "V1" })]))).toEqual(["store"]);
  });

  it.each([
    ["State.fake", "(store.yaml:7; did you mean state?)"],
    ["workflow.dapr", "(store.yaml:7; a type starts with state, pubsub, secretstores"],
  ])("of the category in %s", async (type, hint) => {
    const text = `process component store error: incorrect type ${type} ${hint}`;
    await expect(open([component({ type })])).rejects.toThrow(text);
  });

  it("is only told when failures are ignored", async () => {
    const resources = [component({ type: "state.none", ignoreErrors: true }), component({ name: "b" })];
    expect(names(await open(resources))).toEqual(["b"]);
    expect(failed).toEqual([
      expect.stringMatching(
        /^Failed to init component store \(state\.none\/v1\): \[CREATE_COMPONENT_FAILURE\]: init/,
      ),
      expect.stringMatching(
        /^Ignoring error processing component: process component store error: \[INIT_COMP/,
      ),
    ]);
  });
});

describe("a component that a block cannot serve", () => {
  const refuse = (thrown: Error) => (category: string, opened: { readonly resource: ComponentResource }) => {
    if (category === "state" && opened.resource.name === "store") throw thrown;
  };

  it.each([
    ["CREATE", new CreationError("key", "no key")],
    ["INIT", new MetadataError("prefix", "no prefix")],
  ])("ends the start with %s_COMPONENT_FAILURE and is closed", async (kind, thrown) => {
    let closed = 0;
    openState = () => Promise.resolve({ close: () => Promise.resolve(void closed++) });
    await expect(open([component()], [], refuse(thrown))).rejects.toThrow(
      `[${kind}_COMPONENT_FAILURE]: initialization error occurred for store (state.fake/v1): ${thrown.message} (`,
    );
    expect(closed).toBe(1);
  });

  it("is left out when failures are ignored", async () => {
    const resources = [component({ ignoreErrors: true }), component({ name: "b" })];
    expect(names(await open(resources, [], refuse(new MetadataError("prefix", "no prefix"))))).toEqual(["b"]);
    expect(failed.at(-1)).toMatch(/^Ignoring error processing component: .*no prefix/);
  });
});

describe("components.deny of the Configuration", () => {
  it.each([
    [undefined, ["a", "b"], []],
    [[], ["a", "b"], []],
    [["state.other"], ["a"], ["b"]],
    [["state.fake/v1"], [], ["a", "b"]],
  ])("%j leaves %j", async (deny, left, denied) => {
    const opened = await open([component({ name: "a" }), component({ name: "b", version: "" })], deny);
    expect(names(opened)).toEqual(left);
    expect(warned.map((line) => / component (\w+) /.exec(line)?.[1])).toEqual(denied);
  });

  it("is named in the warning", async () => {
    await open([component(), component({ version: "" })], ["state.fake"]);
    const forbidden = "is not loaded: components.deny of the Configuration forbids";
    expect(warned).toEqual([
      `store.yaml:3: component store (state.fake/v1) ${forbidden} it`,
      `store.yaml:3: component store (state.fake) ${forbidden} components without a version`,
    ]);
  });
});
