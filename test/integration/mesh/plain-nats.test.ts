// Programs that have only a NATS client: as callers, as apps, and as sources of bytes that are no frame.
import { headers as natsHeaders, type Msg, type NatsConnection } from "@nats-io/transport-node";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FrameKind, decodeFrame, encodeCancel, encodeRequest, readError } from "../../../mesh/frame.ts";
import { MeshError, type JoinedMesh, type MeshRequest } from "../../../mesh/index.ts";
import { eventually } from "../../kit/index.ts";
import {
  type Lab,
  bytes,
  codeOf,
  quickestMs,
  request,
  startLab,
  textOf,
  to,
  whole,
  wholeRequest,
} from "./lab.ts";

let lab: Lab;
let client: NatsConnection;
beforeAll(async () => {
  lab = await startLab();
  client = await lab.nats.connect();
});
afterAll(() => lab[Symbol.asyncDispose]());

const names = (pairs: Record<string, string>) => {
  const made = natsHeaders();
  for (const [name, value] of Object.entries(pairs)) made.append(name, value);
  return made;
};
const headersOf = (message: Msg): Record<string, string> =>
  Object.fromEntries([...(message.headers ?? [])].map(([name, values]) => [name, values.join()]));

describe("a plain caller", () => {
  let last: { request: MeshRequest; by: unknown };
  const ask = (payload: string, pairs: Record<string, string> = {}) =>
    client.request("weft.default.call.echo.default.me", payload, { headers: names(pairs), timeout: 5_000 });
  beforeAll(async () => {
    const mesh = await lab.join("echo");
    await mesh.serve(async (got, by) => {
      last = { request: { ...got, body: Uint8Array.from(whole(got.body)) }, by };
      if (got.path === "/fails") throw new Error("no\r\napp");
      if (got.path === "/large")
        return { status: 200, headers: [], body: new Uint8Array(mesh.maxPayloadBytes()) };
      const headers = [
        "X-Reply",
        "yes",
        "Weft-Status",
        "500",
        "nats-ttl",
        "1s",
        "Content-Length",
        "7",
        "x",
        "a\r\nb",
      ];
      const grpc = got.path === "/grpc" ? { grpc: { code: 3, message: "bad" } } : {};
      return { status: 201, headers, body: got.body, ...grpc };
    });
  });

  it("needs to say nothing: GET / without a body, POST / with one", async () => {
    const answer = await ask("");
    expect(last).toEqual({
      request: { verb: "GET", path: "/", query: "", headers: [], body: new Uint8Array(0) },
      by: { namespace: "default", app: "me" },
    });
    expect(headersOf(answer)).toEqual({ "Weft-Status": "201", "X-Reply": "yes", x: "a  b" });
    await ask("hello");
    expect(last.request).toMatchObject({ verb: "POST", body: Uint8Array.from(bytes("hello")) });
  });

  it("gives verb, path, query and headers; what starts with Weft- or Nats- is no header of the app", async () => {
    await ask("x", {
      "Weft-Verb": "put",
      "Weft-Path": "a/b?c=d?e",
      "X-A": "é",
      "weft-x": "1",
      "Nats-Y": "2",
    });
    expect(last.request).toMatchObject({ verb: "PUT", path: "/a/b", query: "c=d?e", headers: ["X-A", "é"] });
  });

  it("learns of failures by Weft-Status and Weft-Error, and of a gRPC code", async () => {
    const failed = await ask("", { "Weft-Path": "/fails" });
    expect(headersOf(failed)).toEqual({ "Weft-Status": "502", "Weft-Error": "peer" });
    expect(failed.string()).toBe("no\r\napp");
    expect(headersOf(await ask("", { "Weft-Path": "/large" }))).toMatchObject({ "Weft-Error": "too-large" });
    expect(headersOf(await ask("", { "Weft-Path": "/grpc" }))).toMatchObject({ "Weft-Grpc-Status": "3" });
    const odd = await client.request("weft.default.call.echo.default.a=zz", "", { timeout: 5_000 });
    expect(headersOf(odd)).toEqual({ "Weft-Status": "400", "Weft-Error": "protocol" });
  });

  it("may use one reply subject for many calls at once", async () => {
    const inbox = "_INBOX.mine";
    const answers: string[] = [];
    client.subscribe(inbox, { callback: (_error, message) => void answers.push(message.string()) });
    for (let i = 0; i < 50; i++)
      client.publish("weft.default.call.echo.default.me", String(i), { reply: inbox });
    await eventually(() => answers.length === 50);
    expect(new Set(answers).size).toBe(50);
  });
});

describe("a plain app", () => {
  it("answers sidecars: HTTP headers, body, status; an answer without a status is 200", async () => {
    client.subscribe("weft.default.call.plain.*.*", {
      queue: "plain",
      callback: (_error, message) => {
        const seen = { subject: message.subject, headers: headersOf(message), body: message.string() };
        const status = message.headers?.get("Weft-Path") === "/created" ? { "Weft-Status": "201" } : {};
        message.respond(JSON.stringify(seen), {
          headers: names({ ...status, "X-App": "plain", "Weft-Other": "1" }),
        });
      },
    });
    await client.flush();
    const mesh = await lab.join("c");
    const headers = [
      "X-A",
      "1",
      "x-a",
      "2",
      "Host",
      "h",
      "weft-path",
      "/stolen",
      "Nats-TTL",
      "1s",
      "X-B",
      "a\nb",
    ];
    const sent = request({ path: "/p", query: "q", headers, body: bytes("body") });
    const got = await mesh.call(sent, to("plain"));
    expect({ status: got.status, headers: got.headers }).toEqual({
      status: 200,
      headers: ["X-App", "plain"],
    });
    expect(JSON.parse(textOf(got.body)!)).toEqual({
      subject: "weft.default.call.plain.default.c",
      headers: { "Weft-Verb": "POST", "Weft-Path": "/p?q", "X-A": "1", "x-a": "2", "X-B": "a b" },
      body: "body",
    });
    expect((await mesh.call(request({ path: "/created" }), to("plain"))).status).toBe(201);
  });

  it("an error that a sidecar sends in the plain form is an error of the call", async () => {
    client.subscribe("weft.default.call.proxied.*.*", {
      callback: (_error, message) => {
        message.respond("app is away", { headers: names({ "Weft-Status": "502", "Weft-Error": "peer" }) });
      },
    });
    await client.flush();
    const mesh = await lab.join("c");
    const call = mesh.call(request(), to("proxied"));
    await expect(call).rejects.toMatchObject({ code: "peer", message: "app is away" });
  });

  it("that never answers ends with the caller's deadline, with both forms in it", async () => {
    client.subscribe("weft.default.call.mute.*.*", { callback: () => {} });
    await client.flush();
    const mesh = await lab.join("c");
    const tookMs = await quickestMs(async () => {
      expect(await codeOf(mesh.call(request(), to("mute", 300)))).toBe("timeout");
    });
    expect(tookMs).toBeLessThan(1_500);
    await eventually(() => expect(mesh.counts().pendingRequests).toBe(0));
  });

  it("that speaks frames badly: the call ends with protocol", async () => {
    const junk = [
      bytes("junk"),
      Buffer.from("010200000001c1", "hex"),
      Buffer.from("0109000000018000", "hex"),
    ];
    client.subscribe("weft.default.rpc.junk.*.*", {
      callback: (_error, message) => {
        message.respond(junk.shift());
      },
    });
    await client.flush();
    const mesh = await lab.join("c");
    for (let i = 0; i < 3; i++) expect(await codeOf(mesh.call(request(), to("junk")))).toBe("protocol");
    await eventually(() => expect(mesh.counts().pendingRequests).toBe(0));
  });
});

describe("bytes that are no frame", () => {
  const subject = "weft.default.rpc.target.default.me";
  let mesh: JoinedMesh;
  const warnings: string[] = [];
  const abortions: unknown[] = [];
  beforeAll(async () => {
    mesh = await lab.join("target", { log: (level, text) => level !== "debug" && warnings.push(text) });
    await mesh.serve(async (got, _by, signal) => {
      if (got.path === "/wait") {
        await new Promise<void>((resolve) => {
          signal.addEventListener("abort", () => (abortions.push(signal.reason), resolve()));
        });
      }
      return { status: 200, headers: [], body: got.body };
    });
  });
  const alive = async (): Promise<void> => {
    const answer = await (await lab.join("c")).call(request({ body: bytes("alive") }), to("target"));
    expect(textOf(answer.body)).toBe("alive");
  };

  it("are answered by a protocol error, and the sidecar lives on", async () => {
    const sent = encodeRequest(wholeRequest({ path: "/p", headers: ["a", "b"], body: bytes("body") }), 100);
    const bent = fc.tuple(fc.nat(sent.length - 1), fc.nat(255)).map(([at, byte]) => {
      const copy = Buffer.from(sent);
      copy[at] = byte;
      return copy;
    });
    const cut = fc.nat(sent.length - 5).map((length) => sent.subarray(0, length));
    const any = fc.uint8Array({ maxLength: 64 }).map((array) => Buffer.from(array));
    await fc.assert(
      fc.asyncProperty(fc.oneof(bent, cut, any), async (payload) => {
        const answer = await client.request(subject, payload, { timeout: 5_000 });
        const frame = decodeFrame(answer.data);
        if (frame.kind === FrameKind.error) expect(readError(frame).code).toBe("protocol");
        else expect(frame.kind).toBe(FrameKind.response);
      }),
      { numRuns: 300 },
    );
    await alive();
  });

  it.each([
    ["an unknown version", "02010000000180"],
    ["an unknown kind", "01090000000180"],
    ["a response as request", "01020000000180"],
    ["a head longer than the frame", "0101ffffffff80"],
    ["a list as head", "01010000000190"],
    ["a list that claims four billion entries", "010100000005ddffffffff"],
    ["a map that claims four billion entries", "010100000005dfffffffff"],
    ["nothing", ""],
  ])("%s is refused", async (_name, hex) => {
    const answer = await client.request(subject, Buffer.from(hex, "hex"), { timeout: 5_000 });
    expect(readError(decodeFrame(answer.data)).code).toBe("protocol");
  });

  it("in a cancel frame, or a cancel by somebody else, end nothing", async () => {
    const id = "_INBOX.held";
    client.publish(subject, encodeRequest(wholeRequest({ path: "/wait" }), 0), { reply: id });
    await eventually(() => mesh.counts().servedCalls === 1);
    client.publish("weft.default.cancel.target.default.me", "junk");
    client.publish("weft.default.cancel.target.default.me", encodeCancel("_INBOX.other"));
    client.publish("weft.default.cancel.target.default.thief", encodeCancel(id));
    await alive();
    expect(abortions).toEqual([]);
    client.publish("weft.default.cancel.target.default.me", encodeCancel(id));
    await eventually(() => mesh.counts().servedCalls === 0);
    expect(abortions).toEqual([expect.any(MeshError)]);
  });

  it("two calls with one reply subject are two calls", async () => {
    abortions.length = 0;
    const id = "_INBOX.twice";
    const wait = encodeRequest(wholeRequest({ path: "/wait" }), 0);
    client.publish(subject, wait, { reply: id });
    client.publish(subject, wait, { reply: id });
    await eventually(() => mesh.counts().servedCalls === 2);
    client.publish("weft.default.cancel.target.default.me", encodeCancel(id));
    await eventually(() => mesh.counts().servedCalls === 1);
    expect(abortions).toHaveLength(1);
  });

  it("sent without a reply subject, or with one that would make the sidecar write elsewhere, are dropped", async () => {
    const table = await mesh.table({ kind: "state", name: ["default", "target"] });
    await table.put(["k"], bytes("v"));
    client.publish(subject, "junk");
    client.publish(subject, "junk", { reply: `$KV.${table.bucket}.k` });
    client.publish("weft.default.call.target.default.me", "junk", { reply: `$KV.${table.bucket}.k` });
    client.publish(subject, "junk", { reply: "weft.default.topic.pubsub.orders" });
    await eventually(() => warnings.filter((text) => text.includes("is not answered")).length === 3);
    expect(textOf((await table.get(["k"]))?.value)).toBe("v");
    await alive();
  });
});
