// A body that breaks off: an upload that its client gives up, an answer that its app gives up. Nobody may take what
// came for the whole, whichever HTTP the client and the app speak, and however the body ends.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import type { Sidecar } from "../../kit/index.ts";
import {
  dial,
  endHeaders,
  endStream,
  FrameSplit,
  FrameType,
  headerBlock,
  http2Frame,
  preface,
  reset,
  settings,
} from "../grpc/http2-frames.ts";
import { cancelCode, type RawApp, startRawApp } from "./raw-grpc.ts";
import { type AppWire, appWire } from "./wire.ts";

const stack = new AsyncDisposableStack();
const rounds = 10;
const piece = Buffer.alloc(1_000, "x");
/** Of uploads to the HTTP/1.1 app. */
const uploads: ("open" | "complete" | "aborted")[] = [];
let plain: Sidecar;
let clear: Sidecar;
let caller: Sidecar;
let http2: RawApp;
let wire: AppWire;

/** Takes uploads, and breaks off its answer to GET. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === "GET") {
    response.write(piece, () => response.destroy());
    return;
  }
  const at = uploads.push("open") - 1;
  request.on("error", () => {}).resume();
  request.once("end", () => {
    uploads[at] = "complete";
    response.end("taken");
  });
  request.once("close", () => {
    if (uploads[at] === "open") uploads[at] = "aborted";
  });
}

beforeAll(async () => {
  const nats = stack.use(await startNats());
  const server = createServer(serve);
  await once(server.listen(0, "127.0.0.1"), "listening");
  stack.defer(() => server.close().closeAllConnections());
  http2 = stack.use(await startRawApp());
  wire = stack.use(await appWire(http2.port));
  const { port: appPort } = server.address() as AddressInfo;
  plain = stack.use(await startSidecar({ appId: "plain", appPort, nats }));
  clear = stack.use(await startSidecar({ appId: "clear", appPort: wire.port, appProtocol: "h2c", nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});
afterAll(() => stack.disposeAsync());

/** What became of the uploads that the app has seen. */
const seenBy = {
  plain: () => uploads,
  clear: () =>
    wire.calls.map((call) =>
      call.completed
        ? "complete"
        : call.reset === undefined
          ? "open"
          : call.reset === cancelCode && "aborted",
    ),
};

/** Bytes of a request with the beginning of its body. */
const begin = {
  "HTTP/1.1"(path: string, length: number | undefined): Buffer {
    const framing = length === undefined ? "Transfer-Encoding: chunked" : `Content-Length: ${length}`;
    const head = Buffer.from(`POST ${path} HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`);
    if (length !== undefined) return Buffer.concat([head, piece]);
    return Buffer.concat([head, Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from("\r\n")]);
  },
  h2c(path: string, length: number | undefined): Buffer {
    const framing = length === undefined ? [] : ["content-length", String(length)];
    return Buffer.concat([
      ...[preface, settings, http2Head("POST", path, endHeaders, framing)],
      http2Frame(FrameType.data, 0, 1, piece),
    ]);
  },
};

function http2Head(verb: string, path: string, flags: number, more: readonly string[] = []): Buffer {
  const pseudo = [":method", verb, ":scheme", "http", ":authority", "x", ":path", path];
  return http2Frame(FrameType.headers, flags, 1, headerBlock([...pseudo, ...more]));
}

const ends = {
  "a closed connection": (socket: Socket) => socket.end(),
  "a reset connection": (socket: Socket) => socket.resetAndDestroy(),
  "a reset stream": (socket: Socket) => socket.write(reset(1)),
  "an end before its stated length": (socket: Socket) =>
    socket.write(http2Frame(FrameType.data, endStream, 1, Buffer.alloc(0))),
};
type End = keyof typeof ends;

const uploadEnds: readonly ["HTTP/1.1" | "h2c", End][] = [
  ["HTTP/1.1", "a closed connection"],
  ["HTTP/1.1", "a reset connection"],
  ["h2c", "a closed connection"],
  ["h2c", "a reset connection"],
  ["h2c", "a reset stream"],
  ["h2c", "an end before its stated length"],
];

describe.each(["plain", "clear"] as const)("app %s", (app) => {
  const sidecars = () => [caller, app === "plain" ? plain : clear];

  test.each(uploadEnds)("an upload over %s that ends with %s", async (kind, end) => {
    const seen = seenBy[app];
    for (const sidecar of sidecars()) {
      for (const length of end === "an end before its stated length" ? [1_000_000] : [undefined, 1_000_000]) {
        for (let round = 0; round < rounds; round++) {
          const before = seen().length;
          const socket = await dial(sidecar.httpPort);
          socket.resume().write(begin[kind](`/v1.0/invoke/${app}/method/upload`, length));
          await eventually(() => seen().length === before + 1, { everyMs: 2 });
          ends[end](socket);
          await eventually(() => expect(seen()[before]).not.toBe("open"), { everyMs: 2 });
          expect(seen()[before]).toBe("aborted");
          socket.destroy();
        }
      }
    }
  });

  test.each(uploadEnds)("a short one over %s that ends with %s never reaches the app", async (kind, end) => {
    const path = `/v1.0/invoke/${app}/method/upload`;
    for (const sidecar of sidecars()) {
      const before = seenBy[app]().length;
      for (let round = 0; round < rounds; round++) {
        const socket = await dial(sidecar.httpPort);
        socket.resume().write(begin[kind](path, 100_000));
        // Its head and body are read by then.
        await sidecar.get("/v1.0/healthz");
        ends[end](socket);
        await sidecar.get("/v1.0/healthz");
        socket.destroy();
      }
      expect((await sidecar.post(path, "whole")).status).toBe(200);
      expect(seenBy[app]().slice(before)).toEqual(["complete"]);
    }
  });
});

/** Resolves with how a GET over h2c ended: by its end, or by a reset. */
async function endOfGet(sidecar: Sidecar, path: string): Promise<"complete" | "reset"> {
  const socket = await dial(sidecar.httpPort);
  const split = new FrameSplit(0);
  const ended = new Promise<"complete" | "reset">((resolve) =>
    socket.on("data", (chunk: Buffer) => {
      for (const { type, flags } of split.push(chunk)) {
        if (type === FrameType.data && (flags & endStream) !== 0) resolve("complete");
        if (type === FrameType.rst) resolve("reset");
      }
    }),
  );
  socket.write(Buffer.concat([preface, settings, http2Head("GET", path, endHeaders | endStream)]));
  try {
    return await ended;
  } finally {
    socket.destroy();
  }
}

describe.each<[string, "plain" | "clear", (stream: ServerHttp2Stream) => void]>([
  ["an HTTP/1.1 app that closes the connection", "plain", () => {}],
  ["an h2c app that resets with an error", "clear", (stream) => stream.destroy(new Error("x"))],
  ["an h2c app that closes the connection", "clear", (stream) => stream.session?.destroy()],
])("the answer of %s", (_, app, breakOff) => {
  test.each(["HTTP/1.1", "h2c"])("to a client with %s", async (kind) => {
    const path = `/v1.0/invoke/${app}/method/answer`;
    http2.on("/answer", (stream) => {
      stream.respond({ ":status": 200 });
      stream.write(piece, () => breakOff(stream));
    });
    for (const sidecar of [caller, app === "plain" ? plain : clear]) {
      for (let round = 0; round < rounds; round++) {
        if (kind === "h2c") expect(await endOfGet(sidecar, path)).toBe("reset");
        else await expect(fetch(sidecar.httpUrl + path).then((answer) => answer.text())).rejects.toThrow();
      }
    }
  });
});
