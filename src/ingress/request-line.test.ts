import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type ClientError, mended } from "./request-line.ts";

const packet = (line: string): ClientError =>
  Object.assign(new Error("x"), {
    code: /^[A-Z]+ \//.test(line) ? "HPE_INVALID_URL" : "HPE_INVALID_METHOD",
    rawPacket: Buffer.from(`${line}\r\nHost: x\r\n\r\n`, "latin1"),
  });

let server: Server;
let client: Socket;
/** Answers a request; replaced by tests. */
let answer: (request: IncomingMessage) => Promise<void>;

beforeEach(async () => {
  answer = () => Promise.resolve();
  server = createServer({ keepAliveTimeout: 250 }, (request, response) => {
    void answer(request).then(() => response.end(`${request.method} ${request.url}`));
  });
  (server as Server & { keepAliveTimeoutBuffer: number }).keepAliveTimeoutBuffer = 0;
  const [parse] = server.listeners("connection") as ((this: Server, socket: Duplex) => void)[];
  const left = new WeakSet<Duplex>();
  server.on("clientError", (error: ClientError, socket: Duplex) => {
    if (left.has(socket)) return;
    const next = mended(socket, error);
    if (next === undefined) return void socket.end("refused");
    left.add(socket);
    parse!.call(server, next);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  client = connect((server.address() as AddressInfo).port, "127.0.0.1").setEncoding("latin1");
});

afterEach(async () => {
  client.destroy();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function ask(line: string): Promise<string> {
  client.write(packet(line).rawPacket!);
  let text = "";
  while (!text.includes("\r\n\r\n") || text.endsWith("\r\n\r\n")) {
    const [chunk] = (await once(client, "data")) as [string];
    text += chunk;
    if (text.endsWith("refused")) break;
  }
  return text.split("\r\n").at(-1)!;
}

test("unknown verbs and bytes above 127 reach the next parser", async () => {
  expect(await ask("BREW /a HTTP/1.1")).toBe("PROPFIND /a");
  expect(await ask("GET /\xC3\xA9?q=\xFF HTTP/1.1")).toBe("GET /%C3%A9?q=%FF");
});

test("a connection that was taken over ends when it is idle, and not before its request is answered", async () => {
  expect(await ask("BREW /a HTTP/1.1")).toBe("PROPFIND /a");
  answer = () => new Promise((resolve) => setTimeout(resolve, 900));
  expect(await ask("BREW /slow HTTP/1.1")).toBe("PROPFIND /slow");
  await once(client, "close");
});

describe("what cannot be saved", () => {
  const socket = {} as Duplex;
  test.each(["F(O) / HTTP/1.1", " GET / HTTP/1.1", "GET /a b HTTP/1.1", `${"V".repeat(40)} / HTTP/1.1`])(
    "%j",
    (line) => {
      expect(mended(socket, packet(line))).toBeUndefined();
    },
  );

  test("a line that has not come whole, and errors of another kind", () => {
    const half = Object.assign(packet("GET / x"), { rawPacket: Buffer.from("GET /\xE9", "latin1") });
    expect(mended(socket, half)).toBeUndefined();
    expect(
      mended(socket, Object.assign(packet("BREW / HTTP/1.1"), { code: "HPE_INVALID_VERSION" })),
    ).toBeUndefined();
  });
});
