// Bodies in chunks between participants: every size arrives, a slow reader slows its writer, and whatever breaks ends
// both sides with a reason, leaving nothing behind.
// Size: one table of what can happen to a stream.
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type BodyStream,
  BodyQueue,
  type JoinedMesh,
  type MeshResponse,
  MeshError,
  type ServeHandler,
  collectBody,
} from "../../../mesh/index.ts";
import {
  FrameKind,
  decodeFrame,
  encodeChunk,
  encodeEnd,
  encodeRequest,
  encodeResponse,
} from "../../../mesh/frame.ts";
import { chunkBytes, initialWindowBytes } from "../../../mesh/stream.ts";
import { certificateAuthority } from "../../kit/certificates.ts";
import { eventually, faultProxy } from "../../kit/index.ts";
import { type Lab, bytes, codeOf, jumpingClock, request, startLab, startParticipant, to } from "./lab.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(() => lab[Symbol.asyncDispose]());

const ok = (body: MeshResponse["body"] = new Uint8Array(0)): MeshResponse => ({
  status: 200,
  headers: [],
  body,
});
const all = (body: MeshResponse["body"]): Promise<Uint8Array> => collectBody(body, Number.MAX_SAFE_INTEGER);
const hash = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

/** Bytes that differ everywhere, so that a swapped or repeated chunk shows. */
function noise(size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let i = 0; i + 4 <= size; i += 4) out.writeUInt32LE(Math.imul(i + 1, 2654435761) >>> 0, i);
  return out;
}

/** A body of pieces, made as they are wanted; tells how much was taken of it. */
function source(
  size: number,
  pieceBytes = chunkBytes,
): { body: BodyStream; taken(): number; reason(): unknown } {
  let taken = 0;
  let made = 0;
  let reason: unknown;
  const piece = noise(pieceBytes);
  const make = (): void => {
    while (made < size && body.bufferedBytes < pieceBytes) {
      const next = Math.min(pieceBytes, size - made);
      made += next;
      body.push(next === pieceBytes ? piece : piece.subarray(0, next));
    }
    if (made === size) body.end();
  };
  const body: BodyQueue = new BodyQueue({
    onTaken(count) {
      taken += count;
      queueMicrotask(make);
    },
    onCancel: (error) => (reason = error),
  });
  make();
  return { body, taken: () => taken, reason: () => reason };
}

async function pair(app: string, handler: ServeHandler): Promise<{ caller: JoinedMesh; callee: JoinedMesh }> {
  const [caller, callee] = [await lab.join("c"), await lab.join(app)];
  await callee.serve(handler);
  return { caller, callee };
}

/** Nothing of the calls is left on either side. */
async function clean(...meshes: JoinedMesh[]): Promise<void> {
  await eventually(() => {
    for (const mesh of meshes)
      expect(mesh.counts()).toEqual({ pendingRequests: 0, servedCalls: 0, streams: 0 });
    return true;
  });
}

describe("a streamed body", () => {
  const limit = 1024 * 1024;
  const sizes = [0, 1, chunkBytes, initialWindowBytes, limit / 2, limit, 5_000_000]
    .flatMap((size) => [size - 1, size, size + 1])
    .filter((size) => size >= 0);

  it.each(sizes)(
    "of %d bytes comes back as it went: whole, with its length known, and without",
    async (size) => {
      const { caller, callee } = await pair(`echo-${size}`, async ({ body }) =>
        ok(body instanceof Uint8Array ? body : await all(body)),
      );
      const sent = noise(size);
      const app = to(`echo-${size}`);
      const unknown = new BodyQueue();
      const known = new BodyQueue({}, size);
      const [whole, first, second] = [
        caller.call(request({ body: sent }), app),
        caller.call(request({ body: unknown }), app),
        caller.call(request({ body: known }), app),
      ];
      for (const queue of [unknown, known]) {
        queue.push(sent);
        queue.end();
      }
      for (const answer of [whole, first, second])
        expect(hash(await all((await answer).body))).toBe(hash(sent));
      await clean(caller, callee);
    },
  );

  it("is handed on while it is written, both directions at once, in pieces of any size", async () => {
    const { caller, callee } = await pair("live", async ({ body }) => ok(body));
    const sent = new BodyQueue();
    const answer = await caller.call(request({ body: sent }), to("live"));
    const echoed = (answer.body as BodyStream)[Symbol.asyncIterator]();
    for (const text of ["one", "two", "x".repeat(200_000)]) {
      sent.push(bytes(text));
      let got = "";
      while (got.length < text.length) got += Buffer.from((await echoed.next()).value ?? "").toString();
      expect(got).toBe(text);
    }
    sent.end(["grpc-status", "0"]);
    expect((await echoed.next()).done).toBe(true);
    expect((answer.body as BodyStream).trailers).toEqual(["grpc-status", "0"]);
    await clean(caller, callee);
  });

  it("tells its length beforehand when that is known", async () => {
    const { caller } = await pair("long", async ({ body }) => ok(bytes(String((body as BodyStream).length))));
    const body = new BodyQueue({}, 300_000);
    const answer = caller.call(request({ body }), to("long"));
    expect(Buffer.from(await all((await answer).body)).toString()).toBe("300000");
  });

  it("whose reader stands still stops its writer; neither side holds more than the window", async () => {
    const go = Promise.withResolvers<void>();
    let received = 0;
    const { caller, callee } = await pair("slow", async ({ body }) => {
      await go.promise;
      received = (await all(body)).length;
      return ok(source(20_000_000).body);
    });
    const { body, taken } = source(20_000_000);
    const call = caller.call(request({ body }), to("slow"));
    await eventually(() => callee.counts().streams === 1 && taken() >= initialWindowBytes);
    await sleep(300);
    expect(taken()).toBeLessThanOrEqual(initialWindowBytes + 3 * chunkBytes);
    go.resolve();
    const answer = (await call).body as BodyStream;
    expect(received).toBe(20_000_000);
    let size = 0;
    for await (const piece of answer) {
      size += piece.length;
      if (size % 40 === 0) await sleep(1);
    }
    expect(size).toBe(20_000_000);
    await clean(caller, callee);
  });

  it("in many tiny pieces stays within its credit", async () => {
    const { caller } = await pair("tiny", async ({ body }) => ok(bytes(String((await all(body)).length))));
    const { body } = source(20_000, 1);
    expect(Buffer.from(await all((await caller.call(request({ body }), to("tiny"))).body)).toString()).toBe(
      "20000",
    );
  });

  it("2,000 at once leave nothing behind", async () => {
    const { caller, callee } = await pair("many", async ({ body }) => ok(body));
    const calls = Array.from({ length: 2_000 }, async (_, i) => {
      const body = new BodyQueue();
      const answer = caller.call(request({ body }), to("many"));
      body.push(bytes(`a${i}`));
      const got = await answer;
      body.push(bytes("b"));
      body.end();
      return Buffer.from(await all(got.body)).toString();
    });
    expect(await Promise.all(calls)).toEqual(calls.map((_, i) => `a${i}b`));
    await clean(caller, callee);
  });

  it("passes a server with a max_payload of 4 KiB", async () => {
    await using small = await startLab({ maxPayload: 4096 });
    const [caller, callee] = [await small.join("c"), await small.join("echo")];
    await callee.serve(async ({ body }) => ok(await all(body)));
    const sent = noise(300_000);
    expect(hash(await all((await caller.call(request({ body: sent }), to("echo"))).body))).toBe(hash(sent));
  });
});

describe("a stream that ends early", () => {
  it("the app answers without reading: the writer is told, the answer arrives", async () => {
    const { caller, callee } = await pair("refusing", async () => ok(bytes("no thanks")));
    const { body, reason } = source(50_000_000);
    const answer = await caller.call(request({ body }), to("refusing"));
    expect(Buffer.from(await all(answer.body)).toString()).toBe("no thanks");
    await eventually(() => expect(String(reason())).toContain("without reading"));
    await clean(caller, callee);
  });

  it.each([
    ["a small body", 400, false],
    ["a body of known length that no plain program could take", 2_000_000, true],
    ["a body of unknown length that no plain program could take", 2_000_000, false],
  ])("nobody is there, %s: no-responders, and not a byte is lost", async (_what, size, known) => {
    const caller = await lab.join("c");
    const content = noise(size);
    const body = new BodyQueue({}, known ? size : undefined);
    for (let at = 0; at < size; at += 50_000) body.push(content.subarray(at, at + 50_000));
    body.end();
    expect(await codeOf(caller.call(request({ body }), to("nobody")))).toBe("no-responders");
    expect(Buffer.from(content).equals(await all(body))).toBe(true);
    await clean(caller);
  });

  it("the source of the request fails: the handler's reader gets its words", async () => {
    let seen: unknown;
    const { caller, callee } = await pair("victim", async ({ body }) => {
      await all(body).catch((error: unknown) => (seen = error));
      throw seen;
    });
    const body = new BodyQueue();
    const call = caller.call(request({ body }), to("victim"));
    body.push(bytes("begun"));
    await eventually(() => callee.counts().streams === 1);
    body.fail(new Error("the disk is broken"));
    await expect(call).rejects.toMatchObject({ code: "peer", message: "the disk is broken" });
    expect(seen).toBeInstanceOf(MeshError);
    await clean(caller, callee);
  });

  it("the source of the answer fails: the caller's reader gets its words, never a clean end", async () => {
    const body = new BodyQueue();
    const { caller, callee } = await pair("broken", async () => ok(body));
    const answer = await caller.call(request(), to("broken"));
    body.push(bytes("begun"));
    const reading = all(answer.body);
    body.fail(new Error("the app died"));
    await expect(reading).rejects.toMatchObject({ code: "peer", message: "the app died" });
    await clean(caller, callee);
  });

  it.each(["signal", "reader"])(
    "the caller gives up in the midst of the answer (%s): source and handler are told",
    async (how) => {
      const { body, reason } = source(Number.MAX_SAFE_INTEGER);
      const aborted = Promise.withResolvers<unknown>();
      const { caller, callee } = await pair(`endless-${how}`, async (_request, _by, signal) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        return ok(body);
      });
      const stop = new AbortController();
      const answer = await caller.call(request(), { ...to(`endless-${how}`), signal: stop.signal });
      const reading = (async () => {
        let size = 0;
        for await (const piece of answer.body as BodyStream) {
          size += piece.length;
          if (size < 3_000_000) continue;
          if (how === "reader") break;
          stop.abort(new Error("enough"));
        }
      })();
      if (how === "signal") await expect(reading).rejects.toMatchObject({ code: "cancelled" });
      else await reading;
      expect(await aborted.promise).toMatchObject({ code: "cancelled" });
      await eventually(() => reason() !== undefined);
      await clean(caller, callee);
    },
  );

  it("the caller gives up while it sends: the handler's reader and signal are told", async () => {
    let seen: unknown;
    const { caller, callee } = await pair("patient", async ({ body }) =>
      ok(await all(body).catch((error) => ((seen = error), Promise.reject(error)))),
    );
    const { body, reason } = source(Number.MAX_SAFE_INTEGER);
    const stop = new AbortController();
    const call = codeOf(caller.call(request({ body }), { ...to("patient"), signal: stop.signal }));
    await eventually(() => callee.counts().streams === 1);
    stop.abort(new Error("changed my mind"));
    expect(await call).toBe("cancelled");
    await eventually(() => seen !== undefined && reason() !== undefined);
    expect(seen).toMatchObject({ code: "cancelled" });
    await clean(caller, callee);
  });

  it("the serving side drains: what streams is finished, what outlasts the grace is ended with a reason", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("leaving")];
    const queues = [new BodyQueue(), new BodyQueue()];
    const served = await callee.serve(async ({ path }) => ok(queues[Number(path)]));
    const [first, second] = await Promise.all(
      ["0", "1"].map((path) => caller.call(request({ path }), to("leaving"))),
    );
    const results = [all(first!.body), all(second!.body)];
    const drained = served.drain(500);
    queues[0]!.push(bytes("the last words"));
    queues[0]!.end();
    expect(Buffer.from(await results[0]!).toString()).toBe("the last words");
    await expect(results[1]).rejects.toMatchObject({ code: "closed" });
    await drained;
    await clean(caller, callee);
  });
});

describe("over TLS", () => {
  it("large bodies go both ways unchanged", async () => {
    await using authority = await certificateAuthority();
    const { certificate, privateKey } = await authority.issue("nats", ["localhost", "127.0.0.1"]);
    const [certFile, keyFile] = [`${authority.rootFile}.cert`, `${authority.rootFile}.key`];
    await Promise.all([writeFile(certFile, certificate), writeFile(keyFile, privateKey)]);
    await using own = await startLab({ config: `tls { cert_file: "${certFile}", key_file: "${keyFile}" }` });
    const access = { tlsCa: authority.rootFile };
    const [caller, callee] = [await own.join("c", { access }), await own.join("echo", { access })];
    await callee.serve(async ({ body }) => ok(body));
    const size = 3_000_001;
    const { body } = source(size);
    const answer = await all((await caller.call(request({ body }), to("echo"))).body);
    expect(hash(answer)).toBe(hash(await all(source(size).body)));
    await clean(caller, callee);
  });
});

describe("a peer that breaks", () => {
  it("NATS restarts: both sides end with interrupted, and new streams work", async () => {
    await using own = await startLab();
    const [caller, callee] = [await own.join("c"), await own.join("echo")];
    const { body: endless, reason } = source(Number.MAX_SAFE_INTEGER);
    await callee.serve(async ({ path, body }) => ok(path === "/endless" ? endless : await all(body)));
    const upload = source(Number.MAX_SAFE_INTEGER);
    const call = codeOf(caller.call(request({ body: upload.body }), to("echo")));
    const answer = await caller.call(request({ path: "/endless" }), to("echo"));
    const reading = codeOf(
      (async () => {
        for await (const piece of answer.body as BodyStream) void piece;
      })(),
    );
    await eventually(() => upload.taken() > 1_000_000);
    await own.nats.restart();
    expect(await reading).toBe("interrupted");
    expect(await call).toBe("interrupted");
    await eventually(() => reason() !== undefined && upload.reason() !== undefined);
    await Promise.all([caller.ready(), callee.ready()]);
    await clean(caller, callee);
    const { body } = source(2_000_000);
    expect((await all((await caller.call(request({ body }), to("echo"))).body)).length).toBe(2_000_000);
  });

  it.each(["caller", "callee"])(
    "the connection of the %s breaks: the other side is told as soon as it is back",
    async (who) => {
      await using proxy = await faultProxy(lab.nats.port);
      const natsUrls = [proxy.url("nats")];
      const caller = await lab.join("c", who === "caller" ? { natsUrls } : {});
      const callee = await lab.join(`cut-${who}`, who === "callee" ? { natsUrls } : {});
      const { body: endless, reason } = source(Number.MAX_SAFE_INTEGER);
      await callee.serve(async () => ok(endless));
      const answer = await caller.call(request(), to(`cut-${who}`));
      const reading = codeOf(
        (async () => {
          for await (const piece of answer.body as BodyStream) void piece;
        })(),
      );
      proxy.cut();
      await eventually(() => !(who === "caller" ? caller : callee).status().connected);
      proxy.heal();
      expect(await reading).toBe("interrupted");
      await eventually(() => reason() !== undefined);
      await clean(caller, callee);
    },
  );

  it("kill -9 of the serving side during an upload: interrupted at once", async () => {
    await using serving = await startParticipant(lab.nats.url, "swallow", "doomed");
    const caller = await lab.join("c");
    const upload = source(Number.MAX_SAFE_INTEGER);
    const call = codeOf(caller.call(request({ body: upload.body }), to("doomed")));
    await eventually(() => upload.taken() > 3_000_000);
    const startMs = performance.now();
    await serving.kill("SIGKILL");
    expect(await call).toBe("interrupted");
    // Before the limit of 16 s for silence.
    expect(performance.now() - startMs).toBeLessThan(12_000);
    await eventually(() => upload.reason() !== undefined);
    await clean(caller);
  });

  it("kill -9 of the caller: the serving side stops at once", async () => {
    const { body, reason } = source(Number.MAX_SAFE_INTEGER);
    const callee = await lab.join("orphan");
    await callee.serve(async () => ok(body));
    await using calling = await startParticipant(lab.nats.url, "drink", "orphan");
    await eventually(() => calling.logs().includes("drinking"));
    await calling.kill("SIGKILL");
    await eventually(() => reason() !== undefined);
    expect(reason()).toMatchObject({ code: "interrupted" });
    await clean(callee);
  });

  it.each(["caller", "callee"])(
    "the %s falls silent: timeout after 16 s, while an idle stream lives on",
    async (who) => {
      const clock = jumpingClock();
      const silent = jumpingClock();
      const names = { caller: `heard-${who}`, callee: `quiet-${who}` };
      const caller = await lab.join(names.caller, { clock: who === "caller" ? silent : clock });
      const callee = await lab.join(names.callee, { clock: who === "callee" ? silent : clock });
      const body = new BodyQueue();
      await callee.serve(async ({ path }) => ok(path === "/sign" ? undefined : body));
      await caller.serve(async () => ok());
      const answer = await caller.call(request(), to(names.callee));
      const reading = codeOf(all(answer.body));
      // A call to the other goes the way of the signs of life, behind them.
      const signed = async (): Promise<void> => {
        await caller.call(request({ path: "/sign" }), to(names.callee));
        await callee.call(request({ path: "/sign" }), to(names.caller));
      };
      // Each shows life in its own time.
      for (let second = 0; second < 30; second += 5) {
        silent.jump(5_000);
        await signed();
        clock.jump(5_000);
        await signed();
      }
      expect([caller.counts().streams, callee.counts().streams]).toEqual([1, 1]);
      clock.jump(22_000);
      expect(await reading).toBe("timeout");
      await clean(caller, callee);
    },
  );
});

describe("frames of a peer that breaks the rules", () => {
  const subject = "weft.default.inst.callee.x.0.default.c";

  /** A callee made by hand; gives the caller's end of the call and what the caller sends. */
  async function byHand(
    app: string,
    answer: (say: (frame: Uint8Array) => void) => void,
  ): Promise<{ error: string; told: number[] }> {
    const client = await lab.nats.connect();
    const told: number[] = [];
    client.subscribe(subject, {
      callback: (_error, message) => void told.push(decodeFrame(message.data).kind),
    });
    client.subscribe(`weft.default.rpc.${app}.>`, {
      callback: (_error, message) => answer((frame) => client.publish(message.reply!, frame)),
    });
    await client.flush();
    const caller = await lab.join("c");
    const error = await codeOf(caller.call(request(), to(app)).then(({ body }) => all(body)));
    await clean(caller);
    await eventually(
      () => error === "success" || told.includes(FrameKind.cancel) || !error.startsWith("int"),
    );
    return { error, told };
  }
  const head = { status: 200, headers: [], body: bytes("first") };

  it.each([
    ["a lost chunk", [encodeChunk(0, bytes("a")), encodeChunk(2, bytes("c"))], "interrupted"],
    ["a lost last chunk", [encodeChunk(0, bytes("a")), encodeEnd(2, [])], "interrupted"],
    ["a chunk twice", [encodeChunk(0, bytes("a")), encodeChunk(0, bytes("a"))], "interrupted"],
    ["more than its credit", [encodeChunk(0, new Uint8Array(initialWindowBytes))], "protocol"],
    ["no frame", [bytes("junk")], "protocol"],
    ["a proper stream", [encodeChunk(0, bytes("a")), encodeEnd(1, [])], "success"],
  ])("%s", async (name, frames, wanted) => {
    const { error } = await byHand(`hand-${name.replaceAll(" ", "-")}`, (say) => {
      say(encodeResponse(head, { length: undefined, to: subject }));
      for (const frame of frames) say(frame);
    });
    expect(error).toBe(wanted);
  });

  it.each([
    "$JS.API.STREAM.DELETE.x",
    "weft.default.rpc.other.default.c",
    "weft.default.inst.callee.x.0.default.other",
    "",
  ])("the peer names %j as its subject: protocol, nothing is sent there", async (place) => {
    const { error, told } = await byHand(`liar-${place.length}`, (say) =>
      say(encodeResponse(head, { length: undefined, to: place })),
    );
    expect([error, told]).toEqual(["protocol", []]);
  });

  it("a caller that sends more than its credit, leaves a chunk out or is gone: the reader is told", async () => {
    const seen: unknown[] = [];
    const { callee } = await pair("strict", async ({ body }) => {
      const reader = (body as BodyStream)[Symbol.asyncIterator]();
      await sleep(100);
      for (;;) {
        const { done } = await reader.next().catch((error: unknown) => (seen.push(error), { done: true }));
        if (done) throw new Error("enough");
      }
    });
    const client = await lab.nats.connect();
    const open = (): Promise<string> =>
      new Promise((resolve) => {
        const inbox = `_INBOX.hand${seen.length}`;
        const inboxOf = client.subscribe(inbox, {
          callback: (_error, message) => {
            const { kind, head: accept } = decodeFrame(message.data);
            if (kind === FrameKind.accept) resolve(String(accept["to"]));
            if (kind === FrameKind.accept && seen.length === 2) inboxOf.unsubscribe();
          },
        });
        client.publish(
          "weft.default.rpc.strict.default.hand",
          encodeRequest({ ...request(), body: bytes("x") }, 0, { length: undefined }),
          { reply: inbox },
        );
      });
    const first = await open();
    client.publish(first, encodeChunk(0, new Uint8Array(initialWindowBytes)));
    await eventually(() => seen.length === 1);
    client.publish(await open(), encodeChunk(1, bytes("x")));
    await eventually(() => seen.length === 2);
    // An inbox without a subscriber: NATS itself says so with the first sign of life or credit.
    const third = await open();
    await client.flush();
    for (const n of [0, 1]) client.publish(third, encodeChunk(n, new Uint8Array(60_000)));
    await eventually(() => seen.length === 3);
    expect(seen.map((error) => (error as MeshError).code)).toEqual([
      "protocol",
      "interrupted",
      "interrupted",
    ]);
    await clean(callee);
  });

  it("nobody but the caller can speak for its stream", async () => {
    const { caller, callee } = await pair("own", async ({ body }) => ok(await all(body)));
    const body = new BodyQueue();
    const call = caller.call(request({ body }), to("own"));
    await eventually(() => callee.counts().streams === 1);
    const client = await lab.nats.connect();
    client.publish(
      `weft.default.inst.own.${callee.identity.instance}.0.default.thief`,
      encodeChunk(0, bytes("stolen")),
    );
    await client.flush();
    body.push(bytes("mine"));
    body.end();
    expect(Buffer.from(await all((await call).body)).toString()).toBe("mine");
  });
});
