// Configuration, HTTPEndpoint and Resiliency files that change while the sidecar runs: ports stay open, the new content
// holds for calls from then on, and what cannot be used changes nothing.
import { writeFileSync } from "node:fs";
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
import { component, componentsOf, exchange, hasComponents, loggedSince, put, remove } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const configuration = (spec: string): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: { name: c }\nspec:\n${spec}`;
const plain = configuration("  metrics: { enabled: true }\n");
const endpoint = (base: string, more = "", name = "out"): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: { name: ${name} }\nspec:\n  baseUrl: "${base}"\n${more}`;
const resiliency = (policies: string, targets: string, name = "r"): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: { name: ${name} }\n` +
  `spec:\n  policies: ${policies}\n  targets: ${targets}\n`;
const tries = (retries: number): string =>
  resiliency(
    `{ retries: { few: { policy: constant, duration: 1ms, maxRetries: ${retries} } } }`,
    "{ apps: { out: { retry: few } } }",
  );

function putConfig(sidecar: Sidecar, text: string): void {
  exchange(sidecar, "../config.yaml", text);
}

async function metricsOf({ metricsPort }: Sidecar): Promise<string> {
  return (await fetch(`http://127.0.0.1:${metricsPort}/`)).text();
}

const lives = (sidecar: Sidecar): number => sidecar.logs().split("Starting Weft").length - 1;

describe("each part of a Configuration holds at once, both ways:", () => {
  const parts: [string, string, (sidecar: Sidecar) => Promise<boolean>][] = [
    [
      "API lists",
      "  api: { denied: [{ name: state, version: v1.0, protocol: http }] }\n",
      async (sidecar) => (await sidecar.get("/v1.0/state/store/k")).status === 404,
    ],
    [
      "access control",
      "  accessControl: { defaultAction: deny }\n",
      async (sidecar) => (await peer.get(`/v1.0/invoke/${sidecar.appId}/method/m`)).status !== 200,
    ],
    [
      "scopes of secrets",
      "  secrets: { scopes: [{ storeName: vault, defaultAccess: deny }] }\n",
      async (sidecar) => (await sidecar.get("/v1.0/secrets/vault/WEFT_RELOAD")).status === 403,
    ],
    [
      "denied components",
      "  components: { deny: [state.in-memory] }\n",
      async (sidecar) => !(await componentsOf(sidecar)).includes("store"),
    ],
    [
      "features",
      "  features: [{ name: Other, enabled: true }]\n",
      async (sidecar) =>
        (await sidecar.get("/v1.0/metadata"))
          .json<{ enabledFeatures: string[] }>()
          .enabledFeatures.includes("Other"),
    ],
    [
      "the pipeline of the API",
      "  httpPipeline: { handlers: [{ name: upper, type: middleware.http.uppercase }] }\n",
      async (sidecar) =>
        (await sidecar.post(`/v1.0/invoke/${sidecar.appId}/method/m`, "a")).text.includes("A"),
    ],
    [
      "the pipeline of the app",
      "  appHttpPipeline: { handlers: [{ name: upper, type: middleware.http.uppercase }] }\n",
      async (sidecar) => (await peer.post(`/v1.0/invoke/${sidecar.appId}/method/m`, "a")).text.includes("A"),
    ],
    [
      "tracing, off",
      '  tracing: { samplingRate: "0" }\n',
      async (sidecar) => (await sidecar.get("/v1.0/metadata")).headers["traceparent"] === undefined,
    ],
    [
      "tracing, on",
      '  tracing: { samplingRate: "1" }\n',
      async (sidecar) => String((await sidecar.get("/v1.0/metadata")).headers["traceparent"]).endsWith("-01"),
    ],
    ["no metrics", "  metrics: { enabled: false }\n", async (sidecar) => (await metricsOf(sidecar)) === ""],
    [
      "labels of metrics",
      "  metrics: { http: { excludeVerbs: true } }\n",
      async (sidecar) => {
        await sidecar.get("/v1.0/metadata");
        return (await metricsOf(sidecar)).includes('method="",path="/v1.0/metadata"');
      },
    ],
    [
      "buckets of metrics",
      "  metrics: { latencyDistributionBuckets: [77] }\n",
      async (sidecar) => {
        await sidecar.get("/v1.0/metadata");
        const page = await metricsOf(sidecar);
        return page.includes("http_server_latency_bucket") && page.includes('le="77"');
      },
    ],
    [
      "the API log",
      "  logging: { apiLogging: { enabled: true } }\n",
      async (sidecar) => {
        const before = logged;
        await sidecar.get("/v1.0/metadata");
        logged = sidecar.logs().split("HTTP API Called").length;
        return logged > before;
      },
    ],
  ];
  let logged = 1;
  /** What is counted or said already stays. */
  const remains = new Set(["labels of metrics"]);
  const resources = {
    "store.yaml": component("store", "state.in-memory"),
    "vault.yaml": component("vault", "secretstores.local.env"),
    "upper.yaml": component("upper", "middleware.http.uppercase"),
  };
  let app: Awaited<ReturnType<typeof startApp>>;
  let sidecar: Sidecar;
  let peer: Sidecar;
  beforeAll(async () => {
    app = await startApp({ fallback: (request) => ({ body: request.body }) });
    const env = { WEFT_RELOAD: "secret" };
    sidecar = await startSidecar({ appId: "parts", appPort: app.port, nats, config: plain, resources, env });
    peer = await startSidecar({ appId: "peer", nats });
  });
  afterAll(async () => {
    await peer?.[Symbol.asyncDispose]();
    await sidecar?.[Symbol.asyncDispose]();
    await app?.[Symbol.asyncDispose]();
  });

  test.each(parts)("%s", async (what, spec, holds) => {
    expect(await holds(sidecar)).toBe(false);
    putConfig(sidecar, configuration(spec));
    await eventually(async () => expect(await holds(sidecar)).toBe(true), { timeoutMs: 30_000 });
    putConfig(sidecar, plain);
    if (!remains.has(what))
      await eventually(async () => expect(await holds(sidecar)).toBe(false), { timeoutMs: 30_000 });
    expect(lives(sidecar)).toBe(1);
  });
});

test("HTTPEndpoints are added, changed and removed; calls under way end where they began", async () => {
  const slow = Promise.withResolvers<{ body: string }>();
  await using app = await startApp({
    fallback: ({ path }) => (path.endsWith("/slow") ? slow.promise : { body: path }),
  });
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: {} });
  const called = async (): Promise<string> => (await sidecar.get("/v1.0/invoke/out/method/m")).text;
  const reaches = (text: string): Promise<void> =>
    eventually(async () => expect(await called()).toContain(text), { timeoutMs: 30_000 });
  await reaches("ERR_DIRECT_INVOKE");
  put(sidecar, "e.yaml", endpoint(`${app.url}/one`));
  await reaches("/one/m");
  const open = sidecar.get("/v1.0/invoke/out/method/slow");
  await app.received("/one/slow", 1);
  put(sidecar, "e.yaml", endpoint(`${app.url}/two`));
  await reaches("/two/m");
  expect((await sidecar.get("/v1.0/metadata")).json()).toMatchObject({ httpEndpoints: [{ name: "out" }] });
  remove(sidecar, "e.yaml");
  await reaches("ERR_DIRECT_INVOKE");
  slow.resolve({ body: "ended" });
  expect((await open).text).toBe("ended");
});

test("the header of an endpoint follows the secret that it is taken from", async () => {
  await using app = await startApp({ fallback: (request) => ({ body: request.headers["x-key"] }) });
  await using folder = tempDir("vault");
  const file = folder.join("s.json");
  writeFileSync(file, '{"key":"one"}');
  const header = "  headers: [{ name: X-Key, secretKeyRef: { name: key } }]\nauth: { secretStore: vault }\n";
  const vault = (path: string): string =>
    component("vault", "secretstores.local.file", { secretsFile: path });
  const resources = { "v.yaml": vault(file), "e.yaml": endpoint(app.url, header) };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const called = async (): Promise<string> => (await sidecar.get("/v1.0/invoke/out/method/m")).text;
  expect(await called()).toBe("one");
  const next = folder.join("t.json");
  writeFileSync(next, '{"key":"two"}');
  put(sidecar, "v.yaml", vault(next));
  await eventually(async () => expect(await called()).toBe("two"), { timeoutMs: 30_000 });
  // The store is gone: what worked goes on.
  const from = sidecar.logs().length;
  remove(sidecar, "v.yaml");
  await loggedSince(
    sidecar,
    from,
    /e\.yaml:6.*cannot be read: no secret store vault.*it is as it was before/,
  );
  expect(await called()).toBe("two");
});

describe("circuit breakers", () => {
  const policies = (timeout: string, trip: string): string =>
    resiliency(
      `{ timeouts: { t: ${timeout} }, circuitBreakers: { b: { timeout: 10m, trip: ${trip} } } }`,
      "{ apps: { out: { timeout: t, circuitBreaker: b } } }",
    );

  test("stay open while their own rule stays, and begin anew under another", async () => {
    await using app = await startApp({ fallback: () => ({ status: 503 }) });
    const resources = {
      "e.yaml": endpoint(app.url),
      "r.yaml": policies("30s", "consecutiveFailures > 1"),
    };
    await using sidecar = await startSidecar({ appId: "shop", nats, resources });
    const call = async (): Promise<string> => (await sidecar.get("/v1.0/invoke/out/method/m")).text;
    for (let i = 0; i < 2; i++) await call();
    expect(await call()).toContain("circuit breaker is open");
    const changed = async (text: string): Promise<void> => {
      const from = sidecar.logs().length;
      put(sidecar, "r.yaml", text);
      await loggedSince(sidecar, from, /Loading Resiliency configuration: r/);
    };
    await changed(policies("20s", "consecutiveFailures > 1"));
    expect(await call()).toContain("circuit breaker is open");
    expect(app.requests).toHaveLength(2);
    await changed(policies("20s", "consecutiveFailures > 2"));
    for (let i = 0; i < 3; i++) expect(await call()).not.toContain("circuit breaker");
    expect(await call()).toContain("circuit breaker is open");
    expect(app.requests).toHaveLength(5);
  });
});

describe("what cannot be used changes nothing, and one line says why:", () => {
  const good = {
    "e.yaml": endpoint("APP/one"),
    "r.yaml": tries(2),
    "a.yaml": component("a", "state.in-memory"),
  };
  const denying = configuration("  api: { denied: [{ name: secrets, version: v1.0, protocol: http }] }\n");
  let app: Awaited<ReturnType<typeof startApp>>;
  let sidecar: Sidecar;
  const file = (name: "e.yaml" | "r.yaml"): string => good[name].replace("APP", app.url);
  beforeAll(async () => {
    app = await startApp({ fallback: ({ path }) => ({ status: 500, body: path }) });
    const resources = { ...good, "e.yaml": file("e.yaml") };
    sidecar = await startSidecar({ appId: "shop", nats, config: denying, resources });
  });
  afterAll(async () => {
    await sidecar?.[Symbol.asyncDispose]();
    await app?.[Symbol.asyncDispose]();
  });

  const asBefore = async (): Promise<void> => {
    const before = app.requests.length;
    expect((await sidecar.get("/v1.0/invoke/out/method/m")).text).toBe("/one/m");
    expect(app.requests.length - before).toBe(3);
    expect((await sidecar.get("/v1.0/secrets/vault/x")).status).toBe(404);
    expect(await componentsOf(sidecar)).toEqual(["a"]);
  };
  const said = async (from: number, pattern: RegExp): Promise<void> => {
    await loggedSince(sidecar, from, pattern);
    const lines = sidecar
      .logs()
      .slice(from)
      .split("\n")
      .filter((line) => /level=(?:warning|error)/.test(line));
    expect(lines).toEqual([expect.stringMatching(pattern)]);
  };

  const configs: [string, string, RegExp][] = [
    ["an empty Configuration", "", /config\.yaml:1:1: spec is missing; .*spec: \{\}/],
    ["one that is no YAML", `${denying}  : [`, /everything goes on as before: .*config\.yaml:6:/],
    [
      "one cut before its spec",
      denying.slice(0, denying.indexOf("spec")),
      /config\.yaml:1:1: spec is missing/,
    ],
    [
      "a value that cannot be",
      denying.replace("[{", "{").replace("}]", "}"),
      /config\.yaml:5:\d+: spec\.api\.denied must/,
    ],
    [
      "a collector that is none",
      `${denying}  tracing: { zipkin: { endpointAddress: nowhere } }\n`,
      /config\.yaml:6:\d+: .*URL/,
    ],
  ];
  test.each(configs)("%s", async (_, text, pattern) => {
    const from = sidecar.logs().length;
    putConfig(sidecar, text);
    await said(from, pattern);
    await asBefore();
    putConfig(sidecar, denying);
  });

  const files: [string, "e.yaml" | "r.yaml", (text: string) => string, RegExp][] = [
    ["a Resiliency cut short", "r.yaml", (text) => text.slice(0, 90), /r\.yaml:\d+:\d+: /],
    [
      "a duration that is none",
      "r.yaml",
      (text) => text.replace("1ms", "soon"),
      /r\.yaml:5:\d+: .*soon.*; meanwhile it is as it was before/,
    ],
    [
      "a Resiliency without spec",
      "r.yaml",
      (text) => text.slice(0, text.indexOf("spec")),
      /r\.yaml:1:1: spec is missing.*; meanwhile it is as it was before/,
    ],
    [
      "a breaker that cannot be compiled",
      "r.yaml",
      (text) =>
        text.replace(
          "{ retries",
          "{ circuitBreakers: { DefaultAppCircuitBreakerPolicy: { trip: requests + } }, retries",
        ),
      /r\.yaml:5:\d+: .*trip.*; meanwhile it is as it was before/,
    ],
    [
      "an HTTPEndpoint cut short",
      "e.yaml",
      (text) => text.slice(0, 70),
      /e\.yaml:\d+:\d+: .*meanwhile HTTPEndpoint out stays as it was before/,
    ],
    [
      "a base that is no URL",
      "e.yaml",
      (text) => text.replace("http:", "htp:"),
      /e\.yaml:5:\d+: spec\.baseUrl.*meanwhile HTTPEndpoint out stays as it was before/,
    ],
    [
      "a certificate that is none",
      "e.yaml",
      (text) => `${text}  clientTLS: { rootCA: { value: x } }\n`,
      /e\.yaml:6:\d+: .*PEM.*; meanwhile it is as it was before/,
    ],
    [
      "two endpoints of one name",
      "e.yaml",
      (text) => `${text}---\n${text}`,
      /e\.yaml:7:1: duplicate definition of HTTPEndpoint name out.*rename one/,
    ],
  ];
  test.each(files)("%s", async (_, name, spoil, pattern) => {
    const from = sidecar.logs().length;
    exchange(sidecar, name, spoil(file(name)));
    await said(from, pattern);
    await asBefore();
    exchange(sidecar, name, file(name));
  });

  test("mended, it is taken up, beside a file that is still broken", async () => {
    put(sidecar, "a.yaml", good["a.yaml"].slice(0, 60));
    await sidecar.logged(/Component a stays as it was before/, 30_000);
    put(sidecar, "e.yaml", endpoint(`${app.url}/two`));
    const called = async (): Promise<string> => (await sidecar.get("/v1.0/invoke/out/method/m")).text;
    await eventually(async () => expect(await called()).toBe("/two/m"), { timeoutMs: 30_000 });
    expect([await componentsOf(sidecar), lives(sidecar)]).toEqual([["a"], 1]);
  });
});

test("a Configuration that turns HotReload off is the last that is followed", async () => {
  const resources = { "a.yaml": component("a", "state.in-memory") };
  const flags = ["--hot-reload-reconcile-interval=50ms"];
  await using sidecar = await startSidecar({ appId: "shop", nats, config: plain, resources, flags });
  putConfig(sidecar, configuration("  features: [{ name: HotReload, enabled: false }]\n"));
  await sidecar.logged(/turns HotReload off: files are not followed from here on/, 30_000);
  await using witness = await startSidecar({ appId: "witness", nats, flags, resources: {} });
  for (const each of [sidecar, witness]) put(each, "b.yaml", component("b", "state.in-memory"));
  await hasComponents(witness, ["b"]);
  expect(await componentsOf(sidecar)).toEqual(["a"]);
});
