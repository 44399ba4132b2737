// Changes that a running sidecar takes up by starting again in the same process.
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, type Nats, type Sidecar, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { component, componentsOf, hasComponents, loggedSince, put, remove } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const configuration = (spec: string): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: { name: c }\nspec:\n${spec}`;
const off = configuration("  metrics: { enabled: true }\n");
const denying = configuration("  components: { deny: [state.in-memory] }\n");
const lives = (sidecar: Sidecar): number => sidecar.logs().split("Starting Weft").length - 1;

function putConfig(sidecar: Sidecar, text: string): void {
  writeFileSync(join(dirname(sidecar.resourcesPath), "config.yaml"), text);
}

test("a changed Configuration, and not one that cannot be used", async () => {
  const resources = { "a.yaml": component("a", "state.in-memory") };
  await using sidecar = await startSidecar({ appId: "shop", nats, config: off, resources });
  const pid = sidecar.pid;
  putConfig(sidecar, denying.replace("[state.in-memory]", "state.in-memory"));
  await sidecar.logged(/everything goes on as before: error loading configuration: .*deny must be a list/);
  expect(await componentsOf(sidecar)).toEqual(["a"]);
  putConfig(sidecar, denying);
  await sidecar.logged(/The Configuration has changed: reading configuration and resources again/);
  await hasComponents(sidecar, []);
  expect([lives(sidecar), sidecar.pid]).toEqual([2, pid]);
});

test("a changed Resiliency", async () => {
  const policy = (duration: string): string => `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: r }
spec: { policies: { timeouts: { general: ${duration} } }, targets: {} }
`;
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "r.yaml": policy("5s") } });
  put(sidecar, "r.yaml", `# a comment changes nothing\n${policy("5s")}`);
  put(sidecar, "a.yaml", component("a", "state.in-memory"));
  await hasComponents(sidecar, ["a"]);
  expect(lives(sidecar)).toBe(1);
  put(sidecar, "r.yaml", policy("6s"));
  await sidecar.logged(/HTTPEndpoint or Resiliency resource has changed/);
  await eventually(() => expect(lives(sidecar)).toBe(2));
  put(sidecar, "r.yaml", policy("soon"));
  await sidecar.logged(/everything goes on as before: Resiliency r cannot be used: .*r\.yaml:4:\d+: .*soon/);
  put(sidecar, "b.yaml", component("b", "state.in-memory"));
  await hasComponents(sidecar, ["a", "b"]);
  expect(lives(sidecar)).toBe(2);
});

test("a call that never ends does not keep a sidecar from starting again", async () => {
  const began = Promise.withResolvers<void>();
  await using app = await startApp({
    fallback: () => {
      began.resolve();
      return new Promise(() => {});
    },
  });
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    config: off,
    flags: ["--dapr-graceful-shutdown-seconds=1"],
  });
  const { pid } = sidecar;
  const call = sidecar.get("/v1.0/invoke/shop/method/hang").catch(() => undefined);
  await began.promise;
  putConfig(sidecar, denying);
  await eventually(() => expect(lives(sidecar)).toBe(2));
  await eventually(async () => expect((await sidecar.get("/v1.0/healthz")).status).toBe(204));
  expect(sidecar.pid).toBe(pid);
  await call;
});

test("a changed HTTPEndpoint, but not while another file is broken", async () => {
  await using app = await startApp({ fallback: (request) => ({ body: request.path }) });
  const endpoint = (base: string): string =>
    `apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: { name: out }\nspec: { baseUrl: "${base}" }\n`;
  const good = component("a", "state.in-memory");
  const resources = { "e.yaml": endpoint(`${app.url}/one`), "a.yaml": good };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const called = async (): Promise<string> => (await sidecar.get("/v1.0/invoke/out/method/m")).text;
  expect(await called()).toBe("/one/m");

  put(sidecar, "a.yaml", good.slice(0, 60));
  await sidecar.logged(/Component a stays as it was before/);
  const from = sidecar.logs().length;
  put(sidecar, "e.yaml", endpoint(`${app.url}/two`));
  await loggedSince(
    sidecar,
    from,
    /HTTPEndpoint or Resiliency resource has changed; it is taken up when .*a\.yaml can be/,
  );
  expect([await called(), lives(sidecar), await componentsOf(sidecar)]).toEqual(["/one/m", 1, ["a"]]);

  put(sidecar, "a.yaml", good);
  await eventually(async () => expect(await called()).toBe("/two/m"), { timeoutMs: 20_000 });
  expect([lives(sidecar), await componentsOf(sidecar)]).toEqual([2, ["a"]]);
  remove(sidecar, "e.yaml");
  await eventually(async () => expect(await called()).toContain("ERR_DIRECT_INVOKE"), { timeoutMs: 20_000 });
});
