// Apps that speak HTTP/2: h2c by prior knowledge, and TLS servers that choose it when it is offered.
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, request as sendRequest } from "node:http";
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
  /** Answers a request that has come whole. */
  answer: (stream: ServerHttp2Stream, seen: Seen) => void;
  /** Takes a request from its head on; the usual one gathers the body for `answer`. */
  handle: (stream: ServerHttp2Stream, raw: string[]) => void;
  /** Closes all connections without a word. */
  cut(): void;
};

function text(stream: ServerHttp2Stream): void {
  stream.respond({ ":status": 200, "content-type": "text/x" });
  stream.end("ok");
}

async function startHttp2App(server: Http2Server | Http2SecureServer, port = 0): Promise<Http2App> {
  const sessions = new Set<{ destroy(): void }>();
  const gather = (stream: ServerHttp2Stream, raw: string[]): void => {
    const chunks: Buffer[] = [];
    stream.on("error", () => {});
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.once("end", () => {
      const seen = { raw, body: Buffer.concat(chunks) };
      app.seen.push(seen);
      app.answer(stream, seen);
    });
  };
  const app = {
    port,
    seen: [] as Seen[],
    connections: 0,
    answer: text as Http2App["answer"],
    handle: gather,
  };
  server.on("session", (session) => {
    app.connections++;
    sessions.add(session);
    session.on("error", () => {}).once("close", () => sessions.delete(session));
  });
  server.on("stream", (stream: ServerHttp2Stream, ...[, , raw]: [object, number, string[]]) =>
    app.handle(stream, raw),
  );
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

/** A POST in chunks that the test writes. */
function upload(sidecar: Sidecar, path: string) {
  const request = sendRequest({ host: "127.0.0.1", port: sidecar.httpPort, path, method: "POST" });
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    request.once("response", resolve);
    request.once("error", reject);
  });
  answer.catch(() => {});
  return { request, answer };
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

  test("bodies of unknown length stream both ways at once, and unchanged", async () => {
    const before = app.handle;
    app.handle = (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/octet-stream" });
      stream.pipe(stream);
    };
    for (const sidecar of [caller, own]) {
      const sent = createHash("sha256");
      const got = createHash("sha256");
      let size = 0;
      const { request, answer } = upload(sidecar, `${base}/echo`);
      const reading = (async () => {
        for await (const piece of (await answer) as AsyncIterable<Buffer>) {
          got.update(piece);
          size += piece.length;
        }
      })();
      for (let i = 0; i < 48; i++) {
        const piece = randomBytes(65_537);
        sent.update(piece);
        if (!request.write(piece)) await once(request, "drain");
      }
      request.end();
      await reading;
      expect(size).toBe(48 * 65_537);
      expect(got.digest("hex")).toBe(sent.digest("hex"));
    }
    app.handle = before;
  });

  test("clients that give up, apps that reset, and connections cut under load end calls, not the sidecar", async () => {
    const before = app.handle;
    let turn = 0;
    app.handle = (stream) => {
      stream.on("error", () => {});
      switch (turn++ % 6) {
        case 0:
          return stream.close(8);
        case 1:
          stream.respond({ ":status": 200 });
          stream.write("half");
          return void setTimeout(() => stream.close(2), 5);
        case 2:
          return void setTimeout(() => stream.session?.destroy(), 5);
        case 3:
          stream.respond({ ":status": 200, "content-length": "10" });
          return stream.end("short");
        case 4:
          stream.session?.goaway();
          return text(stream);
        default:
          stream.respond({ ":status": 200 });
          return void stream.end("ok");
      }
    };
    const odd = async (sidecar: Sidecar, n: number): Promise<void> => {
      const { request, answer } = upload(sidecar, `${base}/odd`);
      answer.then((response) => response.on("error", () => {}).resume()).catch(() => {});
      const ended = new Promise((resolve) => request.once("close", resolve));
      request.write("x".repeat(1_000 * (n % 7)));
      if (n % 3 === 0) setTimeout(() => request.destroy(), n % 20);
      else request.end();
      await ended;
    };
    for (let round = 0; round < 6; round++) {
      await Promise.all(Array.from({ length: 60 }, (_, n) => odd(n % 2 === 0 ? caller : own, n)));
    }
    app.handle = before;
    app.answer = text;
    for (const sidecar of [caller, own]) {
      await eventually(async () => expect((await sidecar.get(`${base}/after`)).text).toBe("ok"));
      expect(sidecar.running()).toBe(true);
    }
  }, 120_000);

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
