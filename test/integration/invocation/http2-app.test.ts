// Apps that speak HTTP/2: h2c by prior knowledge, and TLS servers that choose it when it is offered.
import { once } from "node:events";
import {
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { certificateAuthority } from "../../kit/certificates.ts";
import { eventually, freePort, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";

type Seen = { readonly raw: readonly string[]; readonly body: Buffer };
type Http2App = AsyncDisposable & {
  readonly port: number;
  readonly seen: Seen[];
  connections: number;
  answer: (stream: ServerHttp2Stream, seen: Seen) => void;
  /** Closes all connections without a word. */
  cut(): void;
};

function text(stream: ServerHttp2Stream): void {
  stream.respond({ ":status": 200, "content-type": "text/x" });
  stream.end("ok");
}

async function startHttp2App(server: Http2Server | Http2SecureServer, port = 0): Promise<Http2App> {
  const sessions = new Set<{ destroy(): void }>();
  const app = { port, seen: [] as Seen[], connections: 0, answer: text as Http2App["answer"] };
  server.on("session", (session) => {
    app.connections++;
    sessions.add(session);
    session.on("error", () => {}).once("close", () => sessions.delete(session));
  });
  server.on("stream", (stream: ServerHttp2Stream, ...[, , raw]: [object, number, string[]]) => {
    const chunks: Buffer[] = [];
    stream.on("error", () => {});
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.once("end", () => {
      const seen = { raw, body: Buffer.concat(chunks) };
      app.seen.push(seen);
      app.answer(stream, seen);
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  app.port = (server.address() as AddressInfo).port;
  const cut = (): void => {
    for (const session of sessions) session.destroy();
  };
  return Object.assign(app, {
    cut,
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

function valuesOf({ raw }: Seen, name: string): string[] {
  return raw.filter((_, i) => i % 2 === 1 && raw[i - 1] === name);
}

let stack: AsyncDisposableStack;
let nats: Nats;
let caller: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});

afterAll(() => stack.disposeAsync());

describe("h2c", () => {
  let app: Http2App;
  let own: Sidecar;
  const base = "/v1.0/invoke/clear/method";

  beforeAll(async () => {
    app = stack.use(await startHttp2App(createServer()));
    const env = { APP_API_TOKEN: "app token" };
    own = stack.use(await startSidecar({ appId: "clear", appPort: app.port, appProtocol: "h2c", nats, env }));
  });

  test.each(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])("%s, both ways", async (method) => {
    app.answer = text;
    const bodiless = method === "GET" || method === "HEAD";
    for (const sidecar of [caller, own]) {
      const init = { method, headers: { "X-A": "1" }, ...(bodiless ? {} : { body: "body" }) };
      const answer = await sidecar.http(`${base}/a%20b?q=%2F`, init);
      expect(answer).toMatchObject({ status: 200, headers: { "content-type": "text/x" } });
      expect(answer.text).toBe(method === "HEAD" ? "" : "ok");
      const seen = app.seen.at(-1)!;
      expect(seen.body.toString()).toBe(bodiless ? "" : "body");
      expect(valuesOf(seen, ":path")).toEqual(["/a%20b?q=%2F"]);
      expect(valuesOf(seen, ":authority")).toEqual([`127.0.0.1:${app.port}`]);
      expect(valuesOf(seen, "x-a")).toEqual(["1"]);
      expect(valuesOf(seen, "dapr-api-token")).toEqual(["app token"]);
      expect(valuesOf(seen, "dapr-caller-app-id")).toEqual(sidecar === caller ? ["caller"] : []);
    }
  });

  test("repeated headers keep all values, in order; cookies of the app keep their lines", async () => {
    app.answer = (stream) => {
      stream.respond({ ":status": 207, "set-cookie": ["a=1", "b=2"], "x-b": ["3", "4"] });
      stream.end();
    };
    const answer = await caller.get(`${base}/many`, { "X-A": ["1", "2", "1"] });
    expect(valuesOf(app.seen.at(-1)!, "x-a")).toEqual(["1, 2, 1"]);
    expect(answer).toMatchObject({
      status: 207,
      headers: { "set-cookie": ["a=1", "b=2"], "x-b": "3, 4" },
    });
  });

  test("statuses, early hints, empty and compressed answers", async () => {
    app.answer = (stream) => {
      stream.additionalHeaders({ ":status": 103, link: "</x>" });
      stream.respond({ ":status": 404, "content-type": "text/x" });
      stream.end("no");
    };
    expect(await caller.get(`${base}/x`)).toMatchObject({ status: 404, text: "no" });
    app.answer = (stream) => stream.respond({ ":status": 204 }, { endStream: true });
    expect(await caller.post(`${base}/x`, "body")).toMatchObject({ status: 204, text: "" });
    app.answer = (stream) => {
      stream.respond({ ":status": 200, "content-encoding": "gzip" });
      stream.end(gzipSync("packed"));
    };
    expect(await caller.get(`${base}/x`)).toMatchObject({ status: 200, text: "packed" });
  });

  test("calls share connections", async () => {
    const held: ServerHttp2Stream[] = [];
    app.answer = (stream) => void held.push(stream);
    const before = app.connections;
    const calls = Array.from({ length: 60 }, () => caller.get(`${base}/x`));
    await eventually(() => held.length === 60);
    expect(app.connections - before).toBeLessThanOrEqual(2);
    for (const stream of held) text(stream);
    expect((await Promise.all(calls)).every(({ status }) => status === 200)).toBe(true);
  });

  test("a reset is an error in Go's words; lost connections are made anew", async () => {
    app.answer = (stream) => stream.close(2);
    const reset = await caller.post(`${base}/x`, "body");
    expect(reset.status).toBe(500);
    expect(reset.json<{ message: string }>().message).toBe(
      "failed to invoke, id: clear, err: rpc error: code = Internal desc = error invoking app channel: " +
        `Post "http://127.0.0.1:${app.port}/x": stream error: INTERNAL_ERROR; received from peer`,
    );
    app.answer = text;
    for (let round = 0; round < 3; round++) {
      app.cut();
      expect(await caller.get(`${base}/x`)).toMatchObject({ status: 200, text: "ok" });
    }
  });

  test("an app without HTTP/2 and an app that is down are errors", async () => {
    await using plain = await startSidecar({
      appId: "plain",
      appPort: nats.port,
      appProtocol: "h2c",
      nats,
    });
    const answer = await plain.post("/v1.0/invoke/plain/method/x", "body");
    expect(answer.status).toBe(500);
    expect(answer.text).toMatch(/"failed to invoke, id: plain, err: Post /);
    const port = await freePort();
    await using down = await startSidecar({
      appId: "down",
      appPort: port,
      appProtocol: "h2c",
      nats,
      wait: "outbound",
    });
    expect((await down.post("/v1.0/invoke/down/method/x", "body")).json<{ message: string }>().message).toBe(
      `failed to invoke, id: down, err: Post "http://127.0.0.1:${port}/x": ` +
        `dial tcp 127.0.0.1:${port}: connect: connection refused`,
    );
  });

  test("health probes and the start go the same way", async () => {
    const flags = ["--enable-app-health-check=true", "--app-health-probe-interval=1"];
    await using probed = await startSidecar({
      appId: "probed",
      appPort: app.port,
      appProtocol: "h2c",
      nats,
      flags,
    });
    app.answer = text;
    await probed.logged(/App entered healthy status/);
    expect(app.seen.some((seen) => valuesOf(seen, ":path")[0] === "/healthz")).toBe(true);
  });
});

test("an https app gets HTTP/2 when it takes the offer", async () => {
  await using authority = await certificateAuthority();
  const { certificate: cert, privateKey: key } = await authority.issue("app", ["elsewhere.test"]);
  await using app = await startHttp2App(createSecureServer({ cert, key }));
  await using sidecar = await startSidecar({ appId: "tls", appPort: app.port, appProtocol: "https", nats });
  for (const from of [sidecar, caller]) {
    expect(await from.post("/v1.0/invoke/tls/method/x", "body")).toMatchObject({ status: 200, text: "ok" });
  }
  expect(new Set(app.seen.flatMap((seen) => valuesOf(seen, ":scheme")))).toEqual(new Set(["https"]));
});
