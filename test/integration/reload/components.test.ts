// Components that are added, changed and removed while the sidecar runs.
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  eventually,
  type Nats,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { component, componentsOf, hasComponents, loggedSince, put, remove } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const memory = (name: string, prefix = "appid"): string =>
  component(name, "state.in-memory", { keyPrefix: prefix });

async function save(sidecar: Sidecar, store: string, value: unknown): Promise<number> {
  return (await sidecar.post(`/v1.0/state/${store}`, [{ key: "k", value }])).status;
}

async function read(sidecar: Sidecar, store: string): Promise<string> {
  const reply = await sidecar.get(`/v1.0/state/${store}/k`);
  return reply.status === 200 ? reply.text : `${reply.status} ${reply.text}`;
}

test("a component is added, changed and removed", async () => {
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "a.yaml": memory("first") } });
  await save(sidecar, "first", 1);

  put(sidecar, "b.yaml", component("second", "state.nats", { keyPrefix: "none" }));
  await hasComponents(sidecar, ["first", "second"]);
  expect(await save(sidecar, "second", "shared")).toBe(204);

  put(sidecar, "b.yaml", component("second", "state.nats", { keyPrefix: "other" }));
  await sidecar.logged(/Component updated: second \(state\.nats\/v1\)/);
  expect(await read(sidecar, "second")).toBe("204 ");
  expect(await componentsOf(sidecar)).toEqual(["first", "second"]);

  remove(sidecar, "b.yaml");
  await hasComponents(sidecar, ["first"]);
  expect(await read(sidecar, "second")).toMatch(/^400 .*ERR_STATE_STORE_NOT_FOUND/);
  // Never opened anew: what it holds in its memory is there.
  expect(await read(sidecar, "first")).toBe("1");
});

test("a file that is replaced by renaming another, as tools do it", async () => {
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: {} });
  const draft = join(sidecar.resourcesPath, "draft.tmp");
  writeFileSync(draft, memory("first"));
  renameSync(draft, join(sidecar.resourcesPath, "a.yaml"));
  await hasComponents(sidecar, ["first"]);
});

describe("what is wrong with a file takes nothing away that works:", () => {
  let sidecar: Sidecar;
  let from: number;
  const good = memory("store");
  beforeAll(async () => {
    const resources = { "store.yaml": good, "other.yaml": memory("other") };
    sidecar = await startSidecar({ appId: "shop", nats, resources });
    await save(sidecar, "store", "kept");
  });
  afterAll(() => sidecar?.[Symbol.asyncDispose]());

  const stays = /stays as it was before/;
  const cases: [string, string, RegExp][] = [
    ...[0, 1, 20, 35, 50, 70, 80].map((length): [string, string, RegExp] => [
      `cut after ${length} bytes`,
      good.slice(0, length),
      stays,
    ]),
    ["cut within the type", good.slice(0, 95), /the one that was there goes on.*couldn't find state store/],
    ["no YAML", `${good}  - : [`, stays],
    ["without a type", good.replace(/ {2}type.*\n/, ""), /spec\.type is missing.*stays as it was before/],
    [
      "of an unknown type",
      good.replace("in-memory", "in-memry"),
      /the one that was there goes on.*couldn't find/,
    ],
    [
      "with metadata that is refused",
      good.replace("appid", "a||b"),
      /the one that was there goes on.*can't contain/,
    ],
    [
      "with the name of another",
      good.replace("name: store", "name: other"),
      /everything goes on as before: .*duplicate definition of Component name other/,
    ],
  ];
  test.each(cases)("%s", async (_, text, pattern) => {
    from = sidecar.logs().length;
    put(sidecar, "store.yaml", text);
    await loggedSince(sidecar, from, pattern);
    expect(await read(sidecar, "store")).toBe('"kept"');
    // A change elsewhere is taken up meanwhile, unless names meet.
    put(sidecar, "store.yaml", good);
    put(sidecar, "probe.yaml", memory("probe"));
    await hasComponents(sidecar, ["store", "other", "probe"]);
    remove(sidecar, "probe.yaml");
    await hasComponents(sidecar, ["store", "other"]);
    expect(await read(sidecar, "store")).toBe('"kept"');
    expect(sidecar.running()).toBe(true);
  });
});

test("a new component that fails ends nothing, and is tried again when its file is mended", async () => {
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "a.yaml": memory("a") } });
  put(sidecar, "b.yaml", component("b", "state.in-memory", { maxEntries: "none" }));
  await sidecar.logged(/Failed to init component b .*none.* is not an integer/);
  expect(await componentsOf(sidecar)).toEqual(["a"]);
  put(sidecar, "b.yaml", memory("b"));
  await hasComponents(sidecar, ["a", "b"]);
  const ignored = component("c", "state.none").replace(
    "  version: v1\n",
    "  version: v1\n  ignoreErrors: true\n",
  );
  put(sidecar, "c.yaml", ignored);
  await sidecar.logged(
    /Ignoring error processing component: process component c error: \[INIT_COMPONENT_FAIL/,
  );
});

test("a component waits for its secret store, and is opened anew when the secret changes", async () => {
  await using folder = tempDir("vault");
  const [one, two] = [folder.join("one.json"), folder.join("two.json")];
  writeFileSync(one, '{"prefix":"none"}');
  writeFileSync(two, '{"prefix":"shared"}');
  const needy = memory("needy").replace('value: "appid"', "secretKeyRef: { name: prefix }");
  const resources = { "a.yaml": `${needy}auth: { secretStore: vault }\n`, "b.yaml": memory("b") };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  expect(await componentsOf(sidecar)).toEqual(["b"]);

  put(sidecar, "z.yaml", component("vault", "secretstores.local.file", { secretsFile: one }));
  await hasComponents(sidecar, ["b", "vault", "needy"]);
  expect((await sidecar.get("/v1.0/secrets/vault/prefix")).text).toBe('{"prefix":"none"}\n');

  put(sidecar, "z.yaml", component("vault", "secretstores.local.file", { secretsFile: two }));
  await sidecar.logged(/Component updated: needy/);
  expect((await sidecar.get("/v1.0/secrets/vault/prefix")).text).toBe('{"prefix":"shared"}\n');

  // Without the store nothing is known about the secret, so nothing changes.
  remove(sidecar, "z.yaml");
  await hasComponents(sidecar, ["b", "needy"]);
});

test("scopes that no longer name the app remove a component", async () => {
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "a.yaml": memory("a") } });
  put(sidecar, "a.yaml", `${memory("a")}scopes: [cart]\n`);
  await hasComponents(sidecar, []);
});

test("an input binding is added, gets another route and ends; an output binding is there at once", async () => {
  await using app = await startApp({ fallback: () => ({}) });
  await using sidecar = await startSidecar({ appId: "shop", nats, appPort: app.port, resources: {} });
  const tick = (route: string): string =>
    component("tick", "bindings.cron", { schedule: "@every 1s", route });
  const posts = (path: string): number =>
    app.requestsTo(path).filter(({ method }) => method === "POST").length;
  put(sidecar, "tick.yaml", tick("one"));
  await eventually(() => expect(posts("/one")).toBeGreaterThan(0), { timeoutMs: 30_000 });
  put(sidecar, "tick.yaml", tick("two"));
  await eventually(() => expect(posts("/two")).toBeGreaterThan(0), { timeoutMs: 30_000 });
  const before = posts("/one");
  put(sidecar, "web.yaml", component("web", "bindings.http", { url: app.url }));
  await hasComponents(sidecar, ["tick", "web"]);
  const call = { operation: "get", metadata: { path: "out" } };
  expect((await sidecar.post("/v1.0/bindings/web", call)).status).toBe(200);
  remove(sidecar, "tick.yaml");
  await hasComponents(sidecar, ["web"]);
  // A tick that was on its way when its binding went has arrived before the answer of this call.
  await sidecar.post("/v1.0/bindings/web", call);
  const after = posts("/two");
  // The ticks of two more seconds, had it gone on.
  const calls = app.requestsTo("/out").length;
  await eventually(
    async () => {
      await sidecar.post("/v1.0/bindings/web", call);
      expect(app.requestsTo("/out").at(-1)!.atMs - app.requestsTo("/out")[calls]!.atMs).toBeGreaterThan(
        2_000,
      );
    },
    { timeoutMs: 30_000, everyMs: 200 },
  );
  expect([posts("/one"), posts("/two")]).toEqual([before, after]);
});

test("a call under way on a component that is replaced ends on the old one", async () => {
  const resources = { "a.yaml": component("files", "bindings.http", { url: "http://127.0.0.1:9" }) };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const { createServer } = await import("node:http");
  const arrived = Promise.withResolvers<() => void>();
  const server = createServer((_request, response) => arrived.resolve(() => void response.end("late")));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const bound = (extra: string): string =>
    component("files", "bindings.http", { url: `http://127.0.0.1:${port}/${extra}` });
  put(sidecar, "a.yaml", bound("one"));
  await sidecar.logged(/Component updated: files/);
  const call = sidecar.post("/v1.0/bindings/files", { operation: "get" });
  const answer = await arrived.promise;
  const from = sidecar.logs().length;
  put(sidecar, "a.yaml", bound("two"));
  await loggedSince(sidecar, from, /Component updated: files/);
  remove(sidecar, "a.yaml");
  await hasComponents(sidecar, []);
  answer();
  expect(await call).toMatchObject({ status: 200, text: "late" });
  server.closeAllConnections();
  server.close();
});

test("a call that a policy tries again after its component was replaced goes to the new one", async () => {
  await using ill = await startApp({ fallback: () => ({ status: 500 }) });
  await using well = await startApp({ fallback: () => ({ body: "reached" }) });
  const bound = (url: string): string => component("out", "bindings.http", { url });
  const policy = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: r }
spec:
  policies: { retries: { patient: { policy: constant, duration: 1s, maxRetries: 30 } } }
  targets: { components: { out: { outbound: { retry: patient } } } }
`;
  const resources = { "a.yaml": bound(`${ill.url}/x`), "r.yaml": policy };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const call = sidecar.post("/v1.0/bindings/out", { operation: "get" });
  await ill.received("/x", 1);
  put(sidecar, "a.yaml", bound(well.url));
  expect(await call).toMatchObject({ status: 200, text: "reached" });
});

test("nothing is followed when the Configuration turns HotReload off", async () => {
  const config = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: c }
spec:
  features: [{ name: HotReload, enabled: false }]
`;
  const flags = ["--hot-reload-reconcile-interval=50ms"];
  await using sidecar = await startSidecar({ appId: "shop", nats, config, flags, resources: {} });
  await using witness = await startSidecar({ appId: "witness", nats, flags, resources: {} });
  for (const each of [sidecar, witness]) put(each, "a.yaml", memory("a"));
  await hasComponents(witness, ["a"]);
  expect(await componentsOf(sidecar)).toEqual([]);
});

test("a folder that is taken away and made again is followed", async () => {
  const flags = ["--hot-reload-reconcile-interval=200ms"];
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    flags,
    resources: { "a.yaml": memory("a") },
  });
  const away = `${sidecar.resourcesPath}-away`;
  renameSync(sidecar.resourcesPath, away);
  await sidecar.logged(/everything goes on as before: .*no such file or directory/);
  expect(await componentsOf(sidecar)).toEqual(["a"]);
  renameSync(away, sidecar.resourcesPath);
  put(sidecar, "b.yaml", memory("b"));
  await hasComponents(sidecar, ["a", "b"]);
  await eventually(async () => expect(await save(sidecar, "b", 1)).toBe(204), { timeoutMs: 30_000 });
});
