// gRPC proxying by the contract, over two sidecars and over one: which app, which metadata, tokens, limits, and every
// way in which an app can answer. The app and the client are raw HTTP/2, so that each header and byte can be seen.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { testCertificate, testKey } from "../grpc/certificate.ts";
import { answer, type Ended, type RawApp, rawClient, type RawClient, startRawApp } from "./raw-grpc.ts";

const stack = new AsyncDisposableStack();
const path = "/my.pkg.Service/Method";
let nats: Nats;
let app: RawApp;
let caller: Sidecar;
let callee: Sidecar;
let remote: RawClient;
let local: RawClient;

beforeAll(async () => {
  nats = stack.use(await startNats());
  app = stack.use(await startRawApp());
  const flags = ["--max-body-size=1Mi"];
  const env = { APP_API_TOKEN: "for-the-app" };
  callee = stack.use(
    await startSidecar({ appId: "callee", appPort: app.port, appProtocol: "grpc", nats, flags, env }),
  );
  caller = stack.use(await startSidecar({ appId: "caller", nats, flags }));
  remote = stack.use(rawClient(caller.grpcPort));
  local = stack.use(rawClient(callee.grpcPort));
});
afterAll(() => stack.disposeAsync());
beforeEach(() => void app.calls.splice(0));

const ways = ["through two sidecars", "through the own sidecar"] as const;
const clientOf = (way: (typeof ways)[number]): RawClient => (way === ways[0] ? remote : local);

/** A unary call. */
async function call(
  client: RawClient,
  headers: Record<string, string | string[]> = {},
  message: Uint8Array = Buffer.from("m"),
  at = path,
): Promise<Ended & { readonly messages: readonly Buffer[] }> {
  const made = client.call(at, { "dapr-app-id": "callee", ...headers });
  made.stream.end(encodeFrame(message));
  return { ...(await made.ended), messages: made.messages };
}

/** Values that the app saw under a name, in their order. */
function seen(name: string, index = 0): string[] {
  const { raw } = app.calls[index]!;
  return raw.filter((_, i) => i % 2 === 1 && raw[i - 1] === name);
}

describe.each(ways)("%s", (way) => {
  test("metadata goes to the app as it is, in its order; what is the transport's is right", async () => {
    const bytes = Buffer.from([0, 255, 7]).toString("base64");
    const made = await call(clientOf(way), {
      "x-one": ["1", "two words", ""],
      "x-one-bin": [bytes, "AA"],
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "user-agent": "a client/1",
      "grpc-encoding": "zstd",
      "grpc-accept-encoding": "zstd",
      "content-type": "application/grpc+thrift",
      "dapr-stream": "true",
    });
    expect([made.code, made.messages.join()]).toEqual([0, "m"]);
    expect(app.calls[0]!.path).toBe(path);
    expect(seen("x-one")).toEqual(["1", "two words", ""]);
    expect(seen("x-one-bin")).toEqual([bytes, "AA"]);
    // The caller's own stays first.
    expect(seen("traceparent")[0]).toBe("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    expect(seen("traceparent").length).toBe(way === ways[0] ? 2 : 1);
    expect(seen("grpc-trace-bin").length).toBe(way === ways[0] ? 1 : 0);
    expect(seen("user-agent")).toEqual(["a client/1"]);
    expect([seen("grpc-encoding"), seen("grpc-accept-encoding")]).toEqual([["zstd"], ["zstd"]]);
    expect([seen("content-type"), seen("te")]).toEqual([["application/grpc+thrift"], ["trailers"]]);
    expect(seen(":authority")).toEqual([`127.0.0.1:${app.port}`]);
    expect([seen("dapr-app-id"), seen("grpc-timeout")]).toEqual([[], []]);
  });

  test("the app is told who calls by the mesh alone, and gets its own token", async () => {
    await call(clientOf(way), {
      "dapr-caller-app-id": "forged",
      "dapr-caller-namespace": "forged",
      "dapr-callee-app-id": "callee",
      "dapr-app-id": "nobody",
      "dapr-api-token": "the caller's",
    });
    const remotely = way === ways[0];
    expect(seen("dapr-caller-app-id")).toEqual(remotely ? ["caller"] : []);
    expect(seen("dapr-caller-namespace")).toEqual(remotely ? ["default"] : []);
    expect(seen("dapr-callee-app-id")).toEqual(remotely ? ["callee"] : []);
    expect(seen("dapr-api-token")).toEqual(["for-the-app"]);
  });

  test("an app may be named with its namespace", async () => {
    expect((await call(clientOf(way), { "dapr-app-id": "callee.default" })).code).toBe(0);
    const wrong = await call(clientOf(way), { "dapr-app-id": "a.b.c" });
    expect([wrong.code, wrong.message]).toEqual([2, "invalid app id a.b.c"]);
  });

  test("headers and trailers come back whole, with a message between them", async () => {
    const bytes = Buffer.from([255, 0]).toString("base64");
    app.on("/t.T/Full", (stream) => {
      answer(
        stream,
        { "x-head": ["a", "b"], "x-head-bin": bytes, "grpc-encoding": "zstd" },
        { "grpc-status": "0", "x-tail": ["c", "d"], "x-tail-bin": bytes },
      );
      stream.end(encodeFrame(Buffer.from("answer")));
    });
    const made = await call(clientOf(way), {}, Buffer.alloc(0), "/t.T/Full");
    expect(made.messages.map(String)).toEqual(["answer"]);
    expect(made.headers).toMatchObject({ "x-head": "a, b", "x-head-bin": bytes, "grpc-encoding": "zstd" });
    expect(made.trailers).toMatchObject({ "grpc-status": "0", "x-tail": "c, d", "x-tail-bin": bytes });
  });

  test("an answer that is nothing but a status, with text, details and metadata", async () => {
    app.on("/t.T/Refuse", (stream) => {
      const fields = {
        "grpc-status": "9",
        "grpc-message": "caf%C3%A9 %25",
        "grpc-status-details-bin": "CAkSBXdoeT8",
        "x-why": "so",
      };
      stream.respond({ ":status": 200, "content-type": "application/grpc", ...fields }, { endStream: true });
    });
    const made = await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Refuse");
    expect([made.code, made.message, made.trailers]).toEqual([9, "café %", undefined]);
    expect(made.headers).toMatchObject({ "grpc-status-details-bin": "CAkSBXdoeT8", "x-why": "so" });
  });

  test("headers wait for the first message, and are not sent without one", async () => {
    let go: (() => void) | undefined;
    app.on("/t.T/Late", (stream) => {
      answer(stream, { "x-head": "h" });
      go = () => void stream.end(encodeFrame(Buffer.from("now")));
    });
    const late = clientOf(way).call("/t.T/Late", { "dapr-app-id": "callee" });
    let headers = false;
    late.stream.once("response", () => (headers = true));
    late.send(Buffer.from("m"));
    await eventually(() => expect(go).toBeDefined());
    // A whole other call passes meanwhile.
    await call(clientOf(way));
    expect(headers).toBe(false);
    go!();
    expect(await late.ended).toMatchObject({ code: 0, headers: { "x-head": "h" } });

    app.on("/t.T/None", (stream) => {
      answer(stream, { "x-head": "h" }, { "grpc-status": "5", "x-tail": "t" });
      stream.end();
    });
    const none = await call(clientOf(way), {}, Buffer.from("m"), "/t.T/None");
    expect([none.code, none.headers!["x-head"], none.headers!["x-tail"]]).toEqual([5, undefined, "t"]);
  });

  test("big metadata both ways", async () => {
    const big = "v".repeat(50_000);
    app.on("/t.T/Big", (stream) => {
      answer(stream, { "x-big": big }, { "grpc-status": "0", "x-big": big });
      stream.end(encodeFrame(Buffer.from("m")));
    });
    const made = await call(clientOf(way), { "x-big": big }, Buffer.from("m"), "/t.T/Big");
    expect([made.code, made.headers!["x-big"], made.trailers!["x-big"]]).toEqual([0, big, big]);
    expect(seen("x-big")).toEqual([big]);
  });

  test("messages above max-body-size are refused by their announcement, both ways", async () => {
    const most = await call(clientOf(way), {}, Buffer.alloc(1024 * 1024));
    expect([most.code, most.messages[0]!.length]).toEqual([0, 1024 * 1024]);
    const made = clientOf(way).call(path, { "dapr-app-id": "callee" });
    made.stream.write(Buffer.from([0, 3, 32, 0, 0]));
    expect(await made.ended).toMatchObject({
      code: 8,
      message: "grpc: received message larger than max (52428800 vs. 1048576)",
    });
    app.on("/t.T/Huge", (stream) => {
      answer(stream, {});
      stream.write(Buffer.from([0, 3, 32, 0, 0]));
    });
    const huge = await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Huge");
    expect([huge.code, huge.message]).toEqual([
      8,
      "grpc: received message larger than max (52428800 vs. 1048576)",
    ]);
    await eventually(() => expect(app.open()).toBe(0));
  });

  test("messages cut into single bytes arrive as they were", async () => {
    const made = clientOf(way).call(path, { "dapr-app-id": "callee" });
    const wire = Buffer.concat(["one", "", "three"].map((text) => encodeFrame(Buffer.from(text))));
    for (const byte of wire) {
      made.stream.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    made.stream.end();
    expect((await made.ended).code).toBe(0);
    expect(made.messages.map(String)).toEqual(["one", "", "three"]);
  });

  test("no word waits for another: each message is answered before the next is sent", async () => {
    const made = clientOf(way).call(path, { "dapr-app-id": "callee" });
    for (let i = 1; i <= 50; i++) {
      made.send(Buffer.from(String(i)));
      await eventually(() => expect(made.messages.length).toBe(i), { everyMs: 1 });
    }
    made.stream.end();
    expect((await made.ended).code).toBe(0);
  });

  test("an app that answers before the client is done ends the call", async () => {
    app.on("/t.T/Early", (stream) => {
      answer(stream, {}, { "grpc-status": "7", "grpc-message": "enough" });
      stream.write(encodeFrame(Buffer.from("first")));
      stream.once("data", () => stream.end());
    });
    const made = clientOf(way).call("/t.T/Early", { "dapr-app-id": "callee" });
    made.send(Buffer.from("m"));
    expect(await made.ended).toMatchObject({ code: 7, message: "enough" });
    expect(made.messages.map(String)).toEqual(["first"]);
  });

  test.each([
    ["resets the stream before an answer", 14, (stream: { close(code: number): void }) => stream.close(7)],
    ["cancels the stream", 1, (stream: { close(code: number): void }) => stream.close(8)],
    ["breaks the protocol", 13, (stream: { close(code: number): void }) => stream.close(1)],
  ])("an app that %s: code %i", async (_, code, end) => {
    app.on("/t.T/Reset", (stream) => end(stream));
    const made = await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Reset");
    expect(made.code).toBe(code);
  });

  test("a call that the app refused to begin is made once more", async () => {
    let refusals = 1;
    app.on("/t.T/Refuse1", (stream) => {
      if (refusals-- > 0) return stream.close(7);
      answer(stream, {});
      return void stream.end(encodeFrame(Buffer.from("m")));
    });
    expect((await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Refuse1")).code).toBe(0);
    expect(app.calls.length).toBe(2);
    app.calls.splice(0);
    app.on("/t.T/Refuse", (stream) => stream.close(7));
    expect((await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Refuse")).code).toBe(14);
    expect(app.calls.length).toBe(2);
  });

  test("an app that is no gRPC server, or breaks off in the middle of a message", async () => {
    app.on("/t.T/Web", (stream) => {
      stream.respond({ ":status": 404, "content-type": "text/html" });
      stream.end("<html>");
    });
    const web = await call(clientOf(way), {}, Buffer.from("m"), "/t.T/Web");
    expect([web.code, web.message]).toEqual([
      12,
      'unexpected HTTP status code received from server: 404; transport: received unexpected content-type "text/html"',
    ]);
    app.on("/t.T/Torn", (stream) => {
      answer(stream, {});
      stream.once("data", () => {
        stream.write(Buffer.concat([encodeFrame(Buffer.from("whole")), Buffer.from([0, 0, 0, 0, 9, 1, 2])]));
        stream.once("data", () => stream.close(2));
      });
    });
    const torn = clientOf(way).call("/t.T/Torn", { "dapr-app-id": "callee" });
    torn.send(Buffer.from("m"));
    await eventually(() => expect(torn.messages.map(String)).toEqual(["whole"]));
    torn.send(Buffer.from("m"));
    // The torn part stays behind.
    expect(await torn.ended).toMatchObject({ code: 13, bytes: 10 });
  });
});

describe("targets", () => {
  test("none is named: Unknown, in the words of the contract", async () => {
    using client = rawClient(caller.grpcPort);
    const none = client.call(path, {}, { end: true });
    expect(await none.ended).toMatchObject({
      code: 2,
      message: "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata",
    });
    const ours = client.call("/dapr.proto.runtime.v1.Dapr/Nope", {}, { end: true });
    expect(await ours.ended).toMatchObject({
      code: 2,
      message: "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
    });
  });

  test("an unknown app: Unknown; the body may be without end", async () => {
    using client = rawClient(caller.grpcPort);
    const made = client.call(path, { "dapr-app-id": "nobody" });
    made.send(Buffer.from("m"));
    expect(await made.ended).toMatchObject({ code: 2, message: "couldn't find service: nobody" });
  });

  test("an app without a port: Unavailable, own or another's", async () => {
    await using bare = await startSidecar({ appId: "bare", nats });
    using own = rawClient(bare.grpcPort);
    for (const client of [own, remote]) expect((await call(client, { "dapr-app-id": "bare" })).code).toBe(14);
  });

  test("an app that is down: Unavailable in Go's words", async () => {
    const first = await startRawApp();
    await using sidecar = await startSidecar({
      appId: "down",
      appPort: first.port,
      appProtocol: "grpc",
      nats,
    });
    expect((await call(remote, { "dapr-app-id": "down" })).code).toBe(0);
    await first[Symbol.asyncDispose]();
    const down = await call(remote, { "dapr-app-id": "down" });
    const refused = `dial tcp 127.0.0.1:${first.port}: connect: connection refused`;
    expect([down.code, down.message]).toEqual([
      14,
      `connection error: desc = "transport: Error while dialing: ${refused}"`,
    ]);
    expect(sidecar.running()).toBe(true);
  });

  test("an app on HTTP, ill by its health checks, still gets its gRPC calls", async () => {
    await using grpcSide = await startRawApp();
    const flags = [
      "--enable-app-health-check=true",
      "--app-health-probe-interval=1",
      "--app-health-threshold=1",
    ];
    await using sick = await startSidecar({ appId: "sick", appPort: grpcSide.port, nats, flags });
    using client = rawClient(sick.grpcPort);
    expect((await call(client, { "dapr-app-id": "sick" })).code).toBe(0);
  });

  test("a grpcs app, whatever its certificate", async () => {
    await using secure = await startRawApp({ tls: { key: testKey, cert: testCertificate } });
    await using sidecar = await startSidecar({
      appId: "secure",
      appPort: secure.port,
      appProtocol: "grpcs",
      nats,
    });
    expect((await call(remote, { "dapr-app-id": "secure" })).code).toBe(0);
    expect(secure.calls[0]!.headers[":scheme"]).toBe("https");
    expect(sidecar.running()).toBe(true);
  });

  test("an HTTP app on the same port answers nothing that is gRPC: Unavailable, and its HTTP works", async () => {
    await using http = await startApp({ fallback: () => ({ body: "http" }) });
    await using sidecar = await startSidecar({ appId: "web", appPort: http.port, nats });
    expect((await call(remote, { "dapr-app-id": "web" })).code).toBe(14);
    const reply = await caller.get("/v1.0/invoke/web/method/x");
    expect([reply.status, reply.text, sidecar.running()]).toEqual([200, "http", true]);
  });
});

test("with an API token set, a proxied call needs it, and the app never sees it", async () => {
  const env = { DAPR_API_TOKEN: "open" };
  await using guarded = await startSidecar({ appId: "guarded", nats, env });
  using client = rawClient(guarded.grpcPort);
  expect((await call(client)).code).toBe(16);
  expect((await call(client, { "dapr-api-token": "wrong" })).code).toBe(16);
  expect((await call(client, { "dapr-api-token": "open" })).code).toBe(0);
  expect([app.calls.length, seen("dapr-api-token")]).toEqual([1, ["for-the-app"]]);
});

test("a deadline that has passed before the call: nobody is called", async () => {
  for (const client of [remote, local]) {
    for (const passed of ["0n", "0m", "0H"]) {
      const ended = await call(client, { "grpc-timeout": passed });
      expect([ended.code, ended.message]).toEqual([4, "context deadline exceeded"]);
      const own = client.call("/dapr.proto.runtime.v1.Dapr/GetMetadata", { "grpc-timeout": passed });
      own.stream.end(encodeFrame(Buffer.alloc(0)));
      expect(await own.ended).toMatchObject({ code: 4, message: "context deadline exceeded" });
    }
  }
  expect(app.calls).toEqual([]);
});

test("the app gets what is left of the deadline; when it passes, both sides are told", async () => {
  let over: number | undefined;
  app.on("/t.T/Slow", (stream) => stream.once("close", () => (over = stream.rstCode)));
  const startMs = performance.now();
  // Time enough for a slow machine to bring it to the app.
  const slow = await call(remote, { "grpc-timeout": "4000m" }, Buffer.from("m"), "/t.T/Slow");
  expect([slow.code, slow.message]).toEqual([4, "context deadline exceeded"]);
  expect(performance.now() - startMs).toBeLessThan(20_000);
  const left = /^(\d+)m$/.exec(seen("grpc-timeout")[0]!)![1];
  expect(Number(left)).toBeLessThanOrEqual(4_000);
  expect(Number(left)).toBeGreaterThan(0);
  await eventually(() => expect(over).toBe(8));
  expect((await call(remote, { "grpc-timeout": "soon" })).code).toBe(13);
});
