// Input bindings: which of them an app wants, and what it gets, over HTTP and gRPC.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  BindingEventResponse_BindingEventConcurrency as Concurrency,
  type BindingEventResponseSchema,
} from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { eventually, startApp, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import { binding } from "./resources.ts";

type GrpcBindingAnswer = MessageInitShape<typeof BindingEventResponseSchema>;

const everySecond = { schedule: "@every 1s" };

test("an HTTP app is asked by OPTIONS and gets what it wants, under its route", async () => {
  await using nats = await startNats();
  await using app = await startApp({
    routes: {
      "OPTIONS /tick": () => ({ status: 405 }),
      "OPTIONS /unwanted": () => ({ status: 404 }),
      "OPTIONS /way/in": () => ({ status: 200 }),
      "POST /tick": () => ({ status: 500 }),
      "POST /way/in": () => undefined,
      "POST /sure": () => undefined,
    },
  });
  await using _sidecar = await startSidecar({
    appId: "ticker",
    nats,
    appPort: app.port,
    env: { APP_API_TOKEN: "open" },
    resources: {
      "1.yaml": binding("tick", "bindings.cron", everySecond),
      "2.yaml": binding("unwanted", "bindings.cron", everySecond),
      "3.yaml": binding("routed", "bindings.cron", { ...everySecond, route: "/way/in" }),
      "4.yaml": binding("sure", "bindings.cron", { ...everySecond, direction: "input" }),
      "5.yaml": binding("never", "bindings.cron", { schedule: "0 0 31 2 *" }),
    },
  });
  await app.received("/tick", 4);
  await app.received("/way/in", 3);
  await app.received("/sure", 3);
  await app.received("/never", 1);
  const probes = app.requests.filter(({ method }) => method === "OPTIONS").map(({ path }) => path);
  expect(probes).toEqual(["/tick", "/unwanted", "/way/in", "/never"]);
  expect(app.requestsTo("/unwanted").filter(({ method }) => method === "POST")).toEqual([]);
  const [, event] = app.requestsTo("/tick");
  expect(event!.body.length).toBe(0);
  expect(event!.headers["content-type"]).toBe("application/json");
  expect(event!.headers["dapr-api-token"]).toBe("open");
  expect(event!.headers["readtimeutc"]).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC$/);
  expect(event!.headers["timezone"]).toBe("Local");
});

test("a gRPC app lists its bindings, and its answer goes on to the bindings it names", async () => {
  await using nats = await startNats();
  await using receiver = await startApp({ routes: { "POST /sink": () => undefined } });
  const answers: GrpcBindingAnswer[] = [
    { to: ["sink", "nope", "sink"], data: Buffer.from('{"b":2,"a":1}') },
    { to: ["nope", "sink"], data: Buffer.from("no JSON"), concurrency: Concurrency.PARALLEL },
    { to: ["nope", "sink"] },
    { to: ["sink"], data: Buffer.from("1.0") },
  ];
  await using app = await startGrpcApp({
    bindings: ["tick"],
    onBindingEvent: () => answers.shift() ?? {},
  });
  await using _sidecar = await startSidecar({
    appId: "ticker",
    nats,
    appPort: app.port,
    appProtocol: "grpc",
    resources: {
      "1.yaml": binding("tick", "bindings.cron", everySecond),
      "2.yaml": binding("other", "bindings.cron", everySecond),
      "3.yaml": binding("sink", "bindings.http", { url: `${receiver.url}/sink` }),
    },
  });
  const sent = await receiver.received("/sink", 3);
  // One after the other ends at the first failure. Two ticks may be under way at once.
  expect(sent.map(({ body }) => body.toString()).toSorted()).toEqual(["1", "null", '{"a":1,"b":2}']);
  expect(new Set(app.bindingEvents.map(({ request }) => request.name))).toEqual(new Set(["tick"]));
});

test("while the app is ill no event comes, and again when it is well", async () => {
  await using nats = await startNats();
  let well = true;
  await using app = await startApp({
    routes: {
      "GET /healthz": () => ({ status: well ? 200 : 503 }),
      "OPTIONS /tick": () => undefined,
      "POST /tick": () => undefined,
    },
  });
  await using sidecar = await startSidecar({
    appId: "ticker",
    nats,
    appPort: app.port,
    flags: ["--enable-app-health-check=true", "--app-health-probe-interval=1", "--app-health-threshold=1"],
    resources: { "1.yaml": binding("tick", "bindings.cron", everySecond) },
  });
  const posts = (): number => app.requestsTo("/tick").filter(({ method }) => method === "POST").length;
  await eventually(() => expect(posts()).toBeGreaterThan(1));
  well = false;
  const probed = (more: number) => app.received("/healthz", app.requestsTo("/healthz").length + more, 30_000);
  // The second one comes when the first has made the app ill.
  await probed(2);
  await sidecar.logged(/un-healthy/);
  const atIllness = posts();
  await probed(3);
  expect(posts()).toBeLessThanOrEqual(atIllness + 1);
  well = true;
  await eventually(() => expect(posts()).toBeGreaterThan(atIllness + 2), { timeoutMs: 30_000 });
});
