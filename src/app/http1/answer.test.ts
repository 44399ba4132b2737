import type { Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { client, maxHeaderBytes, rawApp } from "../../../test/kit/both-clients.ts";
import { AnswerParser } from "./answer.ts";

const ok = "HTTP/1.1 200 OK\r\n";
const two = "Content-Length: 2\r\n\r\nhi";
const chunked = `${ok}Transfer-Encoding: chunked\r\n\r\n`;

/** What apps write. `!` at the end: the connection ends; `!!`: it is reset. */
const answers: Readonly<Record<string, string>> = {
  "a length": ok + two,
  "no reason": `HTTP/1.1 200\r\n${two}`,
  "an empty reason": `HTTP/1.1 200 \r\n${two}`,
  "a reason of any bytes": `HTTP/1.1 200 \x01\xff:\r\n${two}`,
  "an unknown status": `HTTP/1.1 999 OK\r\n${two}`,
  "empty lines first": `\r\n\r\n${ok}${two}`,
  "empty and odd values": `${ok}A:\r\nB: \r\nC:\t x \t\r\nD: \xff\r\n${two}`,
  "repeated headers": `${ok}Set-Cookie: a\r\nset-cookie: b\r\nX: 1\r\nx: 2\r\n${two}`,
  "leading zeros": `${ok}Content-Length: 002\r\n\r\nhi`,
  "HTTP/1.0": `HTTP/1.0 200 OK\r\n${two}`,
  "HTTP/1.0 kept": `HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n${two}`,
  "HTTP/0.9": `HTTP/0.9 200 OK\r\n${two}`,
  "HTTP/2.0": `HTTP/2.0 200 OK\r\n${two}`,
  "HTTP/1.7": `HTTP/1.7 200 OK\r\n${two}`,
  closed: `${ok}Connection: close\r\n${two}`,
  "closed, in a list": `${ok}Connection: x, Close \r\nKeep-Alive: timeout=60\r\n${two}`,
  "kept for too short": `${ok}Keep-Alive: timeout=1\r\n${two}`,
  "kept for long": `${ok}Keep-Alive: max=5, timeout=60\r\n${two}`,
  "until it ends": `${ok}A: b\r\n\r\nhi!`,
  "until it is reset": `${ok}A: b\r\n\r\nhi!!`,
  "no headers": `${ok}\r\nhi!`,
  chunks: `${chunked}2\r\nhi\r\nA\r\n0123456789\r\n0\r\n\r\n`,
  extensions: `${chunked}2;a=b;c="d e"\r\nhi\r\n0;x\r\n\r\n`,
  trailers: `${chunked}2\r\nhi\r\n0\r\nT: x\r\nU: y\r\n\r\n`,
  "zeros before the size": `${chunked}0000000000000000002\r\nhi\r\n000\r\n\r\n`,
  "chunks inside gzip": `${ok}Transfer-Encoding: gzip, ChunKed \r\n\r\n2\r\nhi\r\n0\r\n\r\n`,
  "chunks twice": `${ok}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n`,
  "gzip inside chunks": `${ok}Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n!`,
  "another encoding": `${ok}Transfer-Encoding: xchunked\r\n\r\nhi!`,
  "204": "HTTP/1.1 204 No\r\n\r\n",
  "204 with a length": "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nhi",
  "204 in chunks": "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
  "304 with a length": "HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n",
  "early hints": `HTTP/1.1 103 H\r\nLink: x\r\nContent-Length: 7\r\n\r\nHTTP/1.1 102 P\r\n\r\n${ok}${two}`,
  "an answer too many": `${ok}${two}${ok}${two}`,
  "an upgrade that is none": `${ok}Connection: upgrade\r\nUpgrade: x\r\n${two}`,
  "as many headers as may be": `${ok}A: ${"x".repeat(maxHeaderBytes - 17)}\r\n${two}`,
  "a header too many": `${ok}A: ${"x".repeat(maxHeaderBytes - 16)}\r\n${two}`,
  "trailers too many": `${chunked}2\r\nhi\r\n0\r\nT: ${"x".repeat(maxHeaderBytes)}\r\n\r\n`,

  nothing: "!",
  "a reset": "!!",
  "half a head": `${ok}A!`,
  "half a head, reset": `${ok}A!!`,
  "half a body": `${ok}Content-Length: 10\r\n\r\nhi!`,
  "half a body, reset": `${ok}Content-Length: 10\r\n\r\nhi!!`,
  "half a body, then closed": `${ok}Connection: close\r\nContent-Length: 10\r\n\r\nhi!`,
  "half a body, closed by a reset": `${ok}Connection: close\r\nContent-Length: 10\r\n\r\nhi!!`,
  "half a chunk": `${chunked}5\r\nhi!`,
  "half a chunk, then closed": `${ok}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi!`,
  "another protocol": "\0\0\x06\x04\0\0\0\0\0",
  words: "sorry\r\n",
  "lines without CR": "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
  "a header without CR": `${ok}A: b\n\r\nhi`,
  "a CR in a value": `${ok}A: b\rc\r\n\r\n`,
  "a CR in the reason": `HTTP/1.1 200 O\rK\r\n${two}`,
  "HTTP/3.0": `HTTP/3.0 200 OK\r\n${two}`,
  "two spaces": `HTTP/1.1  200 OK\r\n${two}`,
  "a short status": `HTTP/1.1 20 OK\r\n${two}`,
  "a long status": `HTTP/1.1 2000 OK\r\n${two}`,
  "a status of letters": `HTTP/1.1 2x0 OK\r\n${two}`,
  "a status with no space": `HTTP/1.1 200OK\r\n${two}`,
  "a folded line": `${ok}A: b\r\n c\r\n${two}`,
  "a space before the colon": `${ok}A : b\r\n${two}`,
  "no colon": `${ok}Abc\r\n${two}`,
  "no name": `${ok}: b\r\n${two}`,
  "a name that is none": `${ok}A\xe9: b\r\n${two}`,
  "a NUL": `${ok}A: b\0c\r\n\r\n`,
  "a control byte": `${ok}A: b\x01c\r\n\r\n`,
  "a DEL": `${ok}A: b\x7fc\r\n\r\n`,
  "one length twice": `${ok}Content-Length: 2\r\n${two}`,
  "two lengths": `${ok}Content-Length: 3\r\n${two}`,
  "a list of lengths": `${ok}Content-Length: 2, 2\r\n\r\nhi`,
  "a negative length": `${ok}Content-Length: -2\r\n\r\nhi`,
  "a length with a sign": `${ok}Content-Length: +2\r\n\r\nhi`,
  "a length in hex": `${ok}Content-Length: 0x2\r\n\r\nhi`,
  "an empty length": `${ok}Content-Length:\r\n\r\nhi`,
  "a huge length": `${ok}Content-Length: 99999999999999999999999\r\n\r\nhi`,
  "length, then chunks": `${ok}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n`,
  "chunks, then length": `${ok}Transfer-Encoding: chunked\r\n${two}`,
  "any encoding and a length": `${ok}Transfer-Encoding: identity\r\n${two}`,
  "a space behind the size": `${chunked}2 \r\nhi\r\n0\r\n\r\n`,
  "a control byte in an extension": `${chunked}2;a\x01=b\r\nhi\r\n0\r\n\r\n`,
  "a bad trailer": `${chunked}2\r\nhi\r\n0\r\nT x\r\n\r\n`,
  "a length as trailer": `${chunked}2\r\nhi\r\n0\r\n${two}`,
  "a size without CR": `${chunked}2\nhi\r\n0\r\n\r\n`,
  "a size of letters": `${chunked}zz\r\nhi\r\n0\r\n\r\n`,
  "no size": `${chunked}\r\nhi\r\n0\r\n\r\n`,
  "a negative size": `${chunked}-2\r\nhi\r\n0\r\n\r\n`,
  "a size that overflows": `${chunked}fffffffffffffffff\r\nhi\r\n0\r\n\r\n`,
  "a chunk without its end": `${chunked}2\r\nhiXX0\r\n\r\n`,
  "half the end of a chunk": `${chunked}2\r\nhi\rX0\r\n\r\n`,
  "half the end of a size": `${chunked}2\rXhi\r\n0\r\n\r\n`,
};

const refused = (reason: string): string =>
  `Post "http://app/": Response does not match the HTTP/1.1 protocol (${reason})`;
const taken = `[200,["Content-Length","2"],"hi"] kept`;
/** Where undici does otherwise (8.12.4): it fails inside, does not wait for 100, or sums up the digits of a length. */
const different: Readonly<Record<string, readonly [bytes: string, own: string]>> = {
  "a status below 100": [`HTTP/1.1 099 OK\r\n${two}`, refused("Invalid status code")],
  "a change of protocol": ["HTTP/1.1 101 S\r\n\r\n", refused("Unexpected change of protocol")],
  "100 unasked": [`HTTP/1.1 100 Continue\r\n\r\n${ok}${two}`, taken],
  "hints that close": [`HTTP/1.1 103 H\r\nConnection: close\r\n\r\n${ok}${two}`, taken],
  "a space behind the length": [
    `${ok}Content-Length: 2 \r\n\r\nhi`,
    `[200,["Content-Length","2 "],"hi"] kept`,
  ],
  "a length without CR": [
    `${ok}Content-Length: 2\n\r\nhi`,
    refused("Missing expected CR after header value"),
  ],
  "a version of letters": [`HTTP/x.1 200 OK\r\n${two}`, refused("Invalid HTTP version")],
  "a space before the first name": [
    `${ok} A: b\r\n${two}`,
    refused("Unexpected whitespace after header value"),
  ],
  "a size above 2^53": [`${chunked}ffffffffffffffff\r\nhi!`, refused("Chunk size overflow")],
};

/** What a parser tells when it gets these pieces one after the other. */
function parse(pieces: readonly string[], verb = "GET"): string {
  const told: unknown[] = [];
  let body = "";
  let ended = false;
  const events = {
    onHead: (status: number, headers: string[]) => void told.push(status, headers),
    onBody: (chunk: Buffer, from: number, to: number) => void (body += chunk.toString("latin1", from, to)),
    onEnd: () => void (ended = true),
  };
  const parser = new AnswerParser(events, maxHeaderBytes);
  parser.begin(verb);
  let behind = 0;
  try {
    for (const piece of pieces) {
      // What lies in the buffer behind the piece is of an earlier read.
      const taken = parser.feed(Buffer.from(`${piece}\r\n\r\n0123`, "latin1"), piece.length);
      behind += piece.length - taken;
    }
    if (!ended) told.push(parser.finish() ? "finished" : "cut off");
  } catch (error) {
    told.push((error as Error).message);
  }
  return JSON.stringify([...told, body, ended, parser.reusable, parser.keepAlive, behind]);
}

const texts = Object.entries({ ...answers, ...different }).map(
  ([name, row]) => [name, (typeof row === "string" ? row : row[0]).replace(/!+$/, "")] as const,
);

describe("an answer is the same however its bytes are split", () => {
  it.each(texts)("%s", (_name, text) => {
    for (const verb of ["GET", "HEAD"]) {
      const whole = parse([text], verb);
      expect(parse([...text], verb)).toBe(whole);
      const step = text.length > 1000 ? 97 : 1;
      for (let at = 1; at < text.length; at += step) {
        expect(parse([text.slice(0, at), text.slice(at)], verb), `split at ${at}`).toBe(whole);
      }
    }
  });

  it("also in a head that is larger than what is looked at in one go", () => {
    const lines = Array.from({ length: 90 }, (_, i) => `X-${i}: ${"v".repeat(40)}\r\n`).join("");
    const text = `HTTP/1.1 200 ${"r".repeat(5000)}\r\n${lines}${chunked.slice(ok.length)}`;
    const whole = parse([`${text}2\r\nhi\r\n0\r\n\r\n`]);
    expect(whole).toContain('"X-89"');
    expect(parse([...text, "2\r\nhi\r\n0\r\n\r\n"])).toBe(whole);
  });
});

describe.concurrent("an answer is taken or refused as by undici", () => {
  it.each(Object.entries(answers))("%s", async (_name, answer) => {
    for (const verb of ["POST", "HEAD"]) {
      expect(await outcome("own", answer, verb)).toBe(await outcome("undici", answer, verb));
    }
  });

  it.each(Object.entries(different))("but not %s", async (_name, [answer, own]) => {
    expect(await outcome("own", answer, "POST")).toBe(own);
    expect(await outcome("undici", answer, "POST")).not.toBe(own);
  });
});

/** The answer or the error of a POST, and whether the next request goes over the same connection. */
async function outcome(which: "own" | "undici", answer: string, verb: string): Promise<string> {
  let connections = 0;
  await using app = await rawApp((socket) => {
    connections++;
    socket.on("data", () => write(socket, answer));
  });
  await using http = client(app.port, which);
  const send = () => {
    const sent = { verb, path: "/", headers: [], body: undefined };
    return http.http(sent, AbortSignal.timeout(20_000)).then(
      ({ status, headers, body }) => JSON.stringify([status, headers, body.toString("latin1")]),
      (error: Error) => error.message.replaceAll(`127.0.0.1:${app.port}`, "app"),
    );
  };
  const first = await send();
  // A connection rests for a turn of the event loop, undici's for two.
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  const before = connections;
  await send();
  return `${first}${first.startsWith("[") && connections === before ? " kept" : ""}`;
}

function write(socket: Socket, answer: string): void {
  const bytes = Buffer.from(answer.replace(/!+$/, ""), "latin1");
  const how = answer.slice(bytes.length);
  const end = (): void => {
    if (how === "!") socket.end();
    if (how === "!!") socket.resetAndDestroy();
  };
  if (bytes.length === 0) end();
  else socket.write(bytes, end);
}
