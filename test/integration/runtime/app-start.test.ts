// What an app is asked when it is first well: its configuration, then its subscriptions, each once.
import { expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppReply, AppRequest } from "../../kit/index.ts";
import { nativeComponents } from "./resources.ts";

type Asked = App & { readonly questions: AppRequest[]; well: boolean };

/** An app that writes down what it is asked under /dapr/. */
async function startAsked(config: () => AppReply): Promise<Asked> {
  const questions: AppRequest[] = [];
  const state = { well: true };
  const app = await startApp({
    routes: {
      "/healthz": () => ({ status: state.well ? 200 : 500 }),
      "/dapr/config": (request) => {
        questions.push(request);
        return config();
      },
      "/dapr/subscribe": (request) => {
        questions.push(request);
        return { body: [{ pubsubname: "pubsub", topic: "t", route: "/t" }] };
      },
    },
  });
  const well = { get: () => state.well, set: (to: boolean) => (state.well = to) };
  return Object.defineProperty(Object.assign(app, { questions }), "well", well) as unknown as Asked;
}

const resources = { "c.yaml": nativeComponents };
const paths = (app: Asked): string[] => app.questions.map(({ method, path }) => `${method} ${path}`);

test("configuration first, then subscriptions, with the sidecar's app id; once, also after an illness", async () => {
  await using nats = await startNats();
  await using app = await startAsked(() => ({
    body: { entities: ["A"], entitiesConfig: [{ entities: ["B"] }] },
  }));
  app.well = false;
  const flags = [
    "--enable-app-health-check=true",
    "--app-health-probe-interval=1",
    "--app-health-threshold=1",
  ];
  await using sidecar = await startSidecar({ appId: "me", appPort: app.port, nats, resources, flags });
  expect(paths(app)).toEqual([]);
  app.well = true;
  await sidecar.subscribed("t");
  expect(paths(app)).toEqual(["GET /dapr/config", "GET /dapr/subscribe"]);
  for (const { headers } of app.questions) expect(headers["dapr-app-id"]).toBe("me");
  expect(sidecar.logs()).toMatch(/"B\\?".*not in .*entities/);
  app.well = false;
  await sidecar.logged(/the app is withdrawn/);
  app.well = true;
  await sidecar.logged(/App entered healthy status[^]*App entered healthy status/);
  await sidecar.post("/v1.0/publish/pubsub/t", "x");
  await app.received("/t", 1);
  expect(paths(app)).toEqual(["GET /dapr/config", "GET /dapr/subscribe"]);
});

test.each<[string, AppReply]>([
  ["a status other than 200", { status: 404 }],
  ["no JSON", { body: "{" }],
  ["JSON of another kind", { body: { entities: "A" } }],
])("%s is no configuration, and harms nothing", async (_name, reply) => {
  await using nats = await startNats();
  await using app = await startAsked(() => reply);
  await using sidecar = await startSidecar({ appId: "me", appPort: app.port, nats, resources });
  await sidecar.subscribed("t");
  expect(paths(app)).toEqual(["GET /dapr/config", "GET /dapr/subscribe"]);
});

test("--disable-init-endpoints: the app is not asked; without a broker it is not asked for topics", async () => {
  await using nats = await startNats();
  await using app = await startAsked(() => ({}));
  const options = { appPort: app.port, nats, resources };
  await using silent = await startSidecar({
    ...options,
    appId: "a",
    flags: ["--disable-init-endpoints=config,subscribe"],
  });
  await using half = await startSidecar({
    ...options,
    appId: "b",
    flags: ["--disable-init-endpoints=config"],
  });
  await half.subscribed("t");
  expect(paths(app)).toEqual(["GET /dapr/subscribe"]);
  await using bare = await startSidecar({ appId: "c", appPort: app.port, nats });
  await expect
    .poll(() => paths(app), { timeout: 10_000 })
    .toEqual(["GET /dapr/subscribe", "GET /dapr/config"]);
  expect([silent, bare].map((sidecar) => /panic|fatal/i.test(sidecar.logs()))).toEqual([false, false]);
});
