// Programs with nothing but nats-py and msgpack take part in the mesh by mesh/README.md alone: they call apps behind
// sidecars and are apps themselves, publish and receive events, read and write state. See plain-nats/plain_nats.py.
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  eventually,
  python,
  runPython,
  startApp,
  startGrpcApp,
  startNats,
  startPython,
  startSidecar,
} from "../kit/index.ts";
import type { App, GrpcApp, Nats, RunningProcess, Sidecar } from "../kit/index.ts";
import { openEvents } from "../integration/state/event-source.ts";
import { resources } from "./resources.ts";

const program = "test/compat/plain-nats/plain_nats.py";

describe("a plain NATS program", () => {
  const stack = new AsyncDisposableStack();
  let nats: Nats;
  let app: App;
  let sidecar: Sidecar;
  let grpcApp: GrpcApp;

  beforeAll(async () => {
    await python();
    nats = stack.use(await startNats());
    app = stack.use(await startApp({ fallback: (request) => ({ status: 404, body: request.path }) }));
    app.on("POST /price", (request) => ({
      body: { got: request.body.toString() },
      headers: { "x-answer": "42" },
    }));
    app.subscribe({ pubsubname: "bus", topic: "orders.eu", route: "/orders" });
    app.subscribe(
      { pubsubname: "bus", topic: "turns", route: "/turns", metadata: { ordered: "true" } },
      () => new Promise((resolve) => setTimeout(resolve, Math.random() * 20)),
    );
    const common = { nats, resources };
    sidecar = stack.use(await startSidecar({ appId: "pricing", appPort: app.port, ...common }));
    const onInvoke = (): object => ({
      data: { typeUrl: "", value: Buffer.from("over gRPC") },
      contentType: "text/plain",
    });
    grpcApp = stack.use(await startGrpcApp({ onInvoke }));
    stack.use(await startSidecar({ appId: "gprice", appPort: grpcApp.port, appProtocol: "grpc", ...common }));
    await sidecar.subscribed("orders.eu");
  }, 240_000);
  afterAll(() => stack.disposeAsync());

  /** Runs a command to its end and gives the objects it told. */
  async function run<T = Record<string, unknown>>(command: string, ...args: string[]): Promise<T[]> {
    const told = await runPython(program, [command, nats.url, ...args]);
    return told
      .trim()
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as T);
  }

  async function serve(form: string, appId: string): Promise<RunningProcess> {
    const serving = await startPython(program, ["serve", nats.url, form, appId]);
    await eventually(() => serving.logs().includes('"serving"'), {
      what: "the program to serve",
      timeoutMs: 30_000,
    });
    return serving;
  }

  test("makes the names and frames of the shared vectors and of the page's example", async () => {
    const told = await runPython(program, ["vectors", "test/vectors", "mesh/README.md"]);
    expect(JSON.parse(told)).toMatchObject({ vectors: expect.any(Number), example: 78 });
  });

  describe.each(["rpc", "call"])("calling in the form %s", (form) => {
    test("gets status, headers and body of the app", async () => {
      const [answer] = await run("call", form, "pricing", "/price?item=tea%20leaf", '{"quantity":2}');
      expect(answer).toMatchObject({ status: 200, headers: { "x-answer": "42" } });
      expect(JSON.parse(String(answer?.["body"]))).toEqual({ got: '{"quantity":2}' });
      const seen = app.requestsTo("/price").at(-1);
      expect(seen).toMatchObject({ method: "POST", query: "item=tea%20leaf" });
      expect(seen?.headers).toMatchObject({
        "x-from": "python",
        "dapr-caller-app-id": "py",
        "dapr-caller-namespace": "default",
      });
    });

    test("gets the app's own failures as they are", async () => {
      const [answer] = await run("call", form, "pricing", "/nothing-here");
      expect(answer).toMatchObject({ status: 404, body: "/nothing-here" });
    });

    test("reaches a gRPC app", async () => {
      const [answer] = await run("call", form, "gprice", "/price", "x");
      expect(answer).toMatchObject({ status: 200, body: "over gRPC" });
      expect(form === "rpc" ? answer?.["grpc"] : Number(answer?.["grpc"])).toEqual(
        form === "rpc" ? expect.objectContaining({ code: 0 }) : 0,
      );
      expect(grpcApp.invocations.at(-1)?.request.method).toBe("price");
    });

    test("learns that there is no such app, and that the app cannot be reached", async () => {
      expect(await run("call", form, "nobody", "/price", "x")).toEqual([{ error: "no-responders" }]);
      await app.fail("refuse");
      const [answer] = await run("call", form, "pricing", "/price", "x");
      await app.heal();
      expect(answer?.["error"]).toBe("peer");
      if (form === "call") expect(answer?.["status"]).toBe(502);
    });
  });

  test("is told about a frame that cannot be read", async () => {
    expect(await run("call", "bad", "pricing", "/price")).toEqual([
      { error: "protocol", text: expect.stringContaining("version 2") as unknown },
    ]);
  });

  describe.each(["rpc", "call"])("serving in the form %s", (form) => {
    test("answers invocations of Dapr apps", async () => {
      await using _serving = await serve(form, `py-${form}`);
      const path = `/v1.0/invoke/py-${form}/method/echo/a?x=1&y=%C3%A4`;
      const answer = await sidecar.http(path, {
        method: "PUT",
        body: "hello",
        headers: { "x-custom": "mine" },
      });
      expect(answer.status).toBe(200);
      expect(answer.headers["x-served-by"]).toBe("python");
      expect(answer.json()).toEqual({
        verb: "PUT",
        path: "/echo/a?x=1&y=%C3%A4",
        by: "default/pricing",
        body: "hello",
        x: "mine",
      });
      expect((await sidecar.get(`/v1.0/invoke/py-${form}/method/status/418`)).status).toBe(418);
    });
  });

  test("hears that its caller gave up", async () => {
    await using serving = await serve("rpc", "py-slow");
    const abort = new AbortController();
    const call = sidecar.http("/v1.0/invoke/py-slow/method/slow", { signal: abort.signal });
    const outcome = call.then(
      () => "answered",
      (error: unknown) => String(error),
    );
    await eventually(() => serving.logs().includes('"begun"'));
    abort.abort();
    expect(await outcome).toMatch(/abort/i);
    await eventually(() => serving.logs().includes('"cancelled"'));
  });

  describe("events", () => {
    test.each(["structured", "binary"])("published in %s mode reach a Dapr app", async (mode) => {
      const before = app.requestsTo("/orders").length;
      await run("publish", "bus", "orders.eu", mode, `id-${mode}`, `{"n":"${mode}"}`);
      const event = (await app.received("/orders", before + 1)).at(-1)?.json();
      expect(event).toMatchObject({ id: `id-${mode}`, source: "py", type: "from.python", data: { n: mode } });
    });

    test("that know nothing of CloudEvents are wrapped for a Dapr app", async () => {
      const before = app.requestsTo("/orders").length;
      await run("publish", "bus", "orders.eu", "plain", "id-plain", "just text");
      const event = (await app.received("/orders", before + 1)).at(-1)?.json();
      expect(event).toMatchObject({ specversion: "1.0", topic: "orders.eu", data: "just text" });
    });

    test("published twice with one id are stored once", async () => {
      expect(await run("publish", "bus", "twice", "plain", "id-twice", "1")).toMatchObject([
        { duplicate: false },
      ]);
      expect(await run("publish", "bus", "twice", "plain", "id-twice", "1")).toMatchObject([
        { duplicate: true },
      ]);
    });

    test("with a key are handled in the order of their publishing", async () => {
      const before = app.requestsTo("/turns").length;
      const events = Array.from({ length: 20 }, (_, n) => JSON.stringify({ data: { n } }));
      const told = await run("keyed", "bus", "turns", "customer-42", ...events);
      expect(new Set(told.map(({ subject }) => subject))).toEqual(new Set(["weft.default.14.bus.turns"]));
      const got = (await app.received("/turns", before + 20)).slice(before);
      expect(got.map((request) => request.json<{ data: { n: number } }>().data.n)).toEqual(
        events.map((_, n) => n),
      );
    });

    test("published for later reach a Dapr app when they are due", async () => {
      const before = app.requestsTo("/orders").length;
      const [told] = await run("later", "bus", "orders.eu", "reminder 7", "5", '{"n":1}', '{"n":2}');
      const [request] = (await app.received("/orders", before + 1, 30_000)).slice(before);
      expect(request!.json()).toEqual({ n: 2 });
      expect(request!.atMs).toBeGreaterThanOrEqual(Number(told?.["due"]));
    });

    test("of a Dapr app are received, each by one member of a group", async () => {
      for (const n of [1, 2]) await sidecar.post("/v1.0/publish/bus/to.python", { n });
      type Told = {
        subject: string;
        contentType: string;
        event: { source: string; topic: string; data: { n: number } };
      };
      const [first] = await run<Told>("receive", "bus", "to.python", "g-1", "1");
      const [second] = await run<Told>("receive", "bus", "to.python", "g-1", "1");
      expect(first).toMatchObject({
        subject: "weft.default.topic.bus.to.python",
        contentType: "application/cloudevents+json",
        event: {
          specversion: "1.0",
          source: "pricing",
          topic: "to.python",
          pubsubname: "bus",
          data: { n: 1 },
        },
      });
      expect(second?.event.data).toEqual({ n: 2 });
      const [other] = await run<Told>("receive", "bus", "to.python", "g-2", "1");
      expect(other?.event.data).toEqual({ n: 1 });
    });
  });

  describe("state", () => {
    const save = (key: string, value: unknown): Promise<unknown> =>
      sidecar.post("/v1.0/state/statestore", [{ key, value }]);

    test("saved by a Dapr app is read, whatever the key", async () => {
      const long = "k".repeat(3000);
      for (const key of ["order-1", "a b/%.*>é", long]) {
        await save(key, { of: key.slice(0, 20) });
        const [read] = await run("state", "statestore", "pricing", key);
        expect(JSON.parse(String(read?.["value"]))).toEqual({ of: key.slice(0, 20) });
      }
      expect(await run("state", "statestore", "pricing", "absent")).toEqual([{ absent: true }]);
    });

    test("is guarded by the same revision as the Dapr app's ETag", async () => {
      await save("guarded", "one");
      const { headers } = await sidecar.get("/v1.0/state/statestore/guarded");
      const [read] = await run("state", "statestore", "pricing", "guarded");
      expect(String(read?.["revision"])).toBe(headers["etag"]);
      await run("save", "statestore", String(headers["etag"]), '"two"', "pricing", "guarded");
      expect((await sidecar.get("/v1.0/state/statestore/guarded")).json()).toBe("two");
      const late = await run("save", "statestore", String(headers["etag"]), '"three"', "pricing", "guarded");
      expect(late).toEqual([{ conflict: true }]);
      const stale = [{ key: "guarded", value: "four", etag: headers["etag"] }];
      expect((await sidecar.post("/v1.0/state/statestore", stale)).status).toBe(409);
    });

    test("is read when it is larger than a message of NATS", async () => {
      const value = "x".repeat(3_000_000);
      await save("big", value);
      const sha256 = createHash("sha256").update(JSON.stringify(value)).digest("hex");
      expect(await run("large", "statestore", "pricing", "big")).toEqual([
        { size: 3_000_002, sha256, payload: "" },
      ]);
    });

    test("is listed and watched on both sides", async () => {
      await save("listed", 1);
      const [listed] = await run<{ keys: string[][] }>("keys", "statestore", "pricing");
      expect(listed!.keys).toContainEqual(["pricing", "listed"]);
      const events = await openEvents(`${sidecar.httpUrl}/v1.0-weft1/state/statestore/watch?key=watched`);
      expect(await events.next()).toMatchObject({ event: "ready" });
      const watcher = await startPython(program, ["watch", nats.url, "statestore", "2", "pricing"]);
      await eventually(() => watcher.logs().includes('"watching"'), {
        what: "the program to watch",
        timeoutMs: 30_000,
      });
      await save("watched", "by a sidecar");
      const put = await events.next();
      expect(put).toMatchObject({ event: "put", data: { data: "by a sidecar" } });
      await eventually(() => watcher.logs().includes("by a sidecar"), { what: "the program to see it" });
      const { etag } = put!.data as { etag: string };
      await run("save", "statestore", etag, '"by a program"', "pricing", "watched");
      expect(await events.next()).toMatchObject({ event: "put", data: { data: "by a program" } });
      await eventually(() => !watcher.running(), { what: "the program to have seen two" });
      await events[Symbol.asyncDispose]();
    });
  });

  test("sees who is alive", async () => {
    const alive = await run("presence");
    expect(alive).toContainEqual(
      expect.objectContaining({ namespace: "default", app: "pricing", pid: sidecar.pid, v: 1 }),
    );
    expect(alive.map((it) => it["app"])).toContain("gprice");
  });
});
