import { describe, expect, it } from "vitest";
import { client, rawApp } from "../../../test/kit/both-clients.ts";
import { BodyQueue, bodyOfBytes, type MeshRequest } from "../../../mesh/index.ts";

type Sent = Pick<MeshRequest, "verb"> & Partial<MeshRequest>;

const pieces = (...texts: readonly string[]) => {
  const body = new BodyQueue();
  for (const text of texts) body.push(Buffer.from(text));
  body.end();
  return body;
};

/** Made anew for each client: a stream is read once. */
const requests: Readonly<Record<string, () => Sent>> = {
  GET: () => ({ verb: "GET" }),
  "a query": () => ({ verb: "GET", query: "a=b&c=%20d?e" }),
  "a path of bytes": () => ({ verb: "GET", path: "/a/%2F/\xe9//..;x" }),
  HEAD: () => ({ verb: "HEAD" }),
  "POST of nothing": () => ({ verb: "POST" }),
  "PUT of nothing": () => ({ verb: "PUT" }),
  "DELETE of nothing": () => ({ verb: "DELETE" }),
  "a verb of its own": () => ({ verb: "purge" }),
  "QUERY of nothing": () => ({ verb: "QUERY" }),
  POST: () => ({ verb: "POST", body: Buffer.from("hello") }),
  "GET with a body": () => ({ verb: "GET", body: Buffer.from("hello") }),
  "DELETE with a body": () => ({ verb: "DELETE", body: Buffer.from("hello") }),
  "a large body": () => ({ verb: "POST", body: Buffer.alloc(200_000, "x") }),
  headers: () => ({
    verb: "GET",
    headers: ["X-Case", "A", "x-case", "B", "Accept", ""],
  }),
  "values of bytes": () => ({ verb: "GET", headers: ["A", "\xe9\t\xff", "B", "  x  "] }),
  "a host": () => ({ verb: "GET", headers: ["A", "1", "Host", "elsewhere"] }),
  "connection options": () => ({ verb: "GET", headers: ["Connection", "x, y"] }),
  "a connection that ends": () => ({ verb: "GET", headers: ["connection", "x, Close"] }),
  "a length": () => ({ verb: "POST", headers: ["Content-Length", "5"], body: Buffer.from("hello") }),
  "a length of a stream": () => ({ verb: "POST", body: bodyOfBytes(Buffer.from("hello")) }),
  "pieces of unknown length": () => ({ verb: "POST", body: pieces("hello", "", "x".repeat(100_000), "end") }),
  "no piece at all": () => ({ verb: "POST", body: pieces() }),
  "no piece of a GET": () => ({ verb: "GET", body: pieces() }),
  "pieces of a GET": () => ({ verb: "GET", body: pieces("hello") }),
  "a piece too many": () => ({ verb: "POST", body: Object.assign(pieces("hello", "!"), { length: 5 }) }),

  "a space in the path": () => ({ verb: "GET", path: "/a b" }),
  "a line end in the path": () => ({ verb: "GET", path: "/a\r\nX: y" }),
  "a path above latin1": () => ({ verb: "GET", path: "/\u20ac" }),
  "a path without slash": () => ({ verb: "GET", path: "p" }),
  "a verb with a space": () => ({ verb: "GE T" }),
  "no verb": () => ({ verb: "" }),
  CONNECT: () => ({ verb: "CONNECT" }),
  "a line end in a value": () => ({ verb: "GET", headers: ["X-A", "a\r\nX: y"] }),
  "a LF in a value": () => ({ verb: "GET", headers: ["X-A", "a\nb"] }),
  "a NUL in a value": () => ({ verb: "GET", headers: ["X-A", "a\0b"] }),
  "a value above latin1": () => ({ verb: "GET", headers: ["X-A", "\u20ac"] }),
  "a name above ASCII": () => ({ verb: "GET", headers: ["\xe9", "a"] }),
  "a name with a space": () => ({ verb: "GET", headers: ["X A", "a"] }),
  "a name with a line end": () => ({ verb: "GET", headers: ["X\r\nA", "a"] }),
  "no name": () => ({ verb: "GET", headers: ["", "a"] }),
  "two hosts": () => ({ verb: "GET", headers: ["host", "a", "Host", "b"] }),
  "two lengths": () => ({ verb: "GET", headers: ["content-length", "1", "Content-Length", "1"] }),
  "a length that is none": () => ({ verb: "POST", headers: ["content-length", "-1"] }),
  "another length": () => ({ verb: "POST", headers: ["content-length", "4"], body: Buffer.from("hello") }),
  "an encoding": () => ({ verb: "POST", headers: ["Transfer-Encoding", "chunked"] }),
  "an upgrade": () => ({ verb: "GET", headers: ["Upgrade", "x"] }),
  "a keep-alive": () => ({ verb: "GET", headers: ["Keep-Alive", "x"] }),
  "an expectation": () => ({ verb: "POST", headers: ["Expect", "100-continue"] }),
  "a bad connection option": () => ({ verb: "GET", headers: ["Connection", "a b"] }),
};

describe.concurrent("an app gets the bytes that undici would send, or none", () => {
  it.each(Object.entries(requests))("%s", async (_name, make) => {
    const own = await outcome("own", make());
    expect(own).toEqual(await outcome("undici", make()));
  });
});

/** What a request wrote between two others, or the error instead, and by which connections. */
async function outcome(which: "own" | "undici", sent: Sent) {
  const read: string[] = [];
  let last = "";
  await using app = await rawApp((socket) => {
    const at = read.push("") - 1;
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      read[at] += text;
      last += text;
      if (complete(last)) {
        last = "";
        socket.write("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 0\r\n\r\n");
      }
    });
  });
  await using http = client(app.port, which);
  const again = async () => {
    last = "";
    await http.http(
      { verb: "GET", path: "/again", headers: [], body: undefined },
      AbortSignal.timeout(20_000),
    );
    // A connection rests for a turn of the event loop, undici's for two.
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  await again();
  const request = { path: "/p", query: "", headers: [], body: new Uint8Array(), ...sent };
  const first = await http.invoke(request, AbortSignal.timeout(20_000)).then(
    () => "sent",
    (error: Error) => error.message,
  );
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  await again();
  // After a refusal undici leaves the connection alone for a while.
  const told = first === "sent" ? read : [read.join("")];
  const address = `127.0.0.1:${app.port}`;
  return { first: first.replace(address, "app"), read: told.map((text) => text.replaceAll(address, "app")) };
}

function complete(text: string): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return false;
  if (/transfer-encoding: chunked/.test(text)) return text.endsWith("\r\n0\r\n\r\n");
  const length = Number(/\r\ncontent-length: (\d+)\r\n/.exec(text)?.[1] ?? 0);
  return text.length >= end + 4 + length;
}
