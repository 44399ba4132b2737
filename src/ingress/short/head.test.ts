import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readShortHead } from "./head.ts";

const limits = { maxHeaderBytes: 4_096, maxBodyBytes: 1_000 };
const read = (text: string): ReturnType<typeof readShortHead> =>
  readShortHead(Buffer.from(text, "latin1"), limits, undefined);

const lines = (...more: string[]): string => ["POST /a HTTP/1.1", "Host: x", ...more, "", ""].join("\r\n");

describe("what is short and plain", () => {
  test("verb, target, headers as they came, length of the body", () => {
    const text = lines("X-A:  one\t", "x-a: two", "Cookie: a=1", "cookie: b=2", "content-length: 12");
    const head = read(`${text}body`)!;
    expect(head).toMatchObject({ verb: "POST", target: "/a", sizeBytes: text.length });
    expect(head.fields.bodyBytes).toBe(12);
    expect(head.fields.raw.slice(2, 6)).toEqual(["X-A", "one", "x-a", "two"]);
    expect(head.fields.named).toMatchObject({ host: "x", "x-a": "one, two", cookie: "a=1; b=2" });
  });

  test("the same header lines are read once", () => {
    const first = read(lines("X-A: 1"))!;
    const again = Buffer.from(lines("X-A: 1").replace("/a", "/b?c"));
    const other = Buffer.from(lines("X-A: 2"));
    expect(readShortHead(again, limits, first.fields)).toMatchObject({
      target: "/b?c",
      fields: first.fields,
    });
    expect(readShortHead(other, limits, first.fields)!.fields.named["x-a"]).toBe("2");
  });

  test("names that every object has are headers like others", () => {
    const head = read(lines("constructor: a", "__proto__: b", "toString: c"))!;
    expect(head.fields.named["constructor"]).toBe("a");
    expect(head.fields.named["tostring"]).toBe("c");
  });
});

test.each([
  ["an end that has not come", "POST /a HTTP/1.1\r\nHost: x\r\n"],
  ["no headers", "POST /a HTTP/1.1\r\n\r\n"],
  ["no host", "GET /a HTTP/1.1\r\nX: y\r\n\r\n"],
  ["two hosts", lines("Host: y")],
  ["HTTP/1.0", lines().replace("1.1", "1.0")],
  ["HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["HEAD", lines().replace("POST", "HEAD")],
  ["another verb", lines().replace("POST", "BREW")],
  ["a verb in lower case", lines().replace("POST", "post")],
  ["a whole URL", lines().replace("/a", "http://x/a")],
  ["a fragment", lines().replace("/a", "/a#b")],
  ["a space in the target", lines().replace("/a", "/a b")],
  ["a byte above 127 in the target", lines().replace("/a", "/\u00e4")],
  ["an empty line before", `\r\n${lines()}`],
  ["a space before the colon", lines("X-A : 1")],
  ["a line that goes on", lines("X-A: 1", " 2")],
  ["no colon", lines("X-A")],
  ["an empty name", lines(": 1")],
  ["a line feed alone", lines("X-A: 1\nX-B: 2")],
  ["a carriage return alone", lines("X-A: 1\rX-B: 2")],
  ["a zero byte", lines("X-A: \0")],
  ["two lengths", lines("Content-Length: 1", "Content-Length: 1")],
  ["a length with a sign", lines("Content-Length: +1")],
  ["an empty length", lines("Content-Length:")],
  ["a list of lengths", lines("Content-Length: 1, 1")],
  ["a long body", lines("Content-Length: 1001")],
  ["chunks", lines("Transfer-Encoding: chunked")],
  ["chunks and a length", lines("Content-Length: 1", "transfer-encoding: chunked")],
  ["an expectation", lines("Expect: 100-continue")],
  ["an upgrade", lines("Upgrade: h2c")],
  ["a connection that ends", lines("Connection: close")],
  ["headers above the limit", lines(`X-A: ${"a".repeat(4_096)}`)],
  ["headers above what is looked at", lines(`X-A: ${"a".repeat(9_000)}`)],
])("%s is left to node", (_name, text) => {
  expect(read(text)).toBeUndefined();
});

describe("beside node's own parser", () => {
  let server: Server;
  const requests: IncomingMessage[] = [];

  beforeAll(async () => {
    server = createServer({ joinDuplicateHeaders: true }, (request, response) => {
      requests.push(request);
      response.setHeader("connection", "close");
      response.end();
    });
    server.on("clientError", (_error, socket) => socket.destroy());
    await once(server.listen(0, "127.0.0.1"), "listening");
  });

  afterAll(() => void server.close());

  async function byNode(text: string): Promise<IncomingMessage | undefined> {
    requests.length = 0;
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.end(text, "latin1");
    await once(socket, "close");
    return requests[0];
  }

  const piece = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom("X-A: 1", "x-b:", "Cookie: a", "Accept: */*", "__proto__: x") },
    { weight: 2, arbitrary: fc.constantFrom("Content-Length: 0", "Content-Length: 3", "Content-Length: 03") },
    { weight: 2, arbitrary: fc.constantFrom("Connection: Keep-Alive", "Connection: x", "Keep-Alive: 1") },
    { weight: 1, arbitrary: fc.constantFrom("Transfer-Encoding: chunked", "TE: trailers", "Trailer: x") },
    { weight: 2, arbitrary: fc.string({ unit: "binary-ascii", maxLength: 12 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom("Host: y", "Set-Cookie: a", " x", "X\t: 1", "X: \u00ff", "X: \x7f"),
    },
  );
  const target = fc.oneof(
    fc.constantFrom("/", "/a?b=c&d", "/%zz", "/a//b", '/"<>\\^`{|}~', "*", "/a#b"),
    fc.string({ unit: "binary-ascii", maxLength: 6 }).map((text) => `/${text}`),
  );
  const request = fc
    .tuple(fc.constantFrom("GET", "POST", "DELETE", "OPTIONS"), target, fc.array(piece, { maxLength: 6 }))
    .map(([verb, path, more]) => [`${verb} ${path} HTTP/1.1`, "Host: x", ...more, "", "abc"].join("\r\n"));

  test("what we take, node takes in the same way", async () => {
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(request, async (text) => {
        const head = read(text);
        if (head === undefined) return;
        taken++;
        const seen = await byNode(text);
        expect(seen).toBeDefined();
        expect([head.verb, head.target]).toEqual([seen!.method, seen!.url]);
        expect(head.fields.raw).toEqual(seen!.rawHeaders);
        expect({ ...head.fields.named }).toEqual({ ...seen!.headers });
        expect(head.fields.bodyBytes).toBe(Number(seen!.headers["content-length"] ?? 0));
      }),
      { numRuns: 600 },
    );
    expect(taken).toBeGreaterThan(30);
  });
});
