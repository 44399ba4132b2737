import { once } from "node:events";
import { createServer } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, connect, type Server } from "node:net";
import { describe, expect, test } from "vitest";
import { Http2Call } from "./http2-call.ts";
import { NodeHttpCall } from "./node-call.ts";

async function listening(server: Server): Promise<number> {
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

describe("a body that is asked for when its client is gone fails at once", () => {
  test.each(["Content-Length: 10", "Content-Length: 1000000", "Transfer-Encoding: chunked"])(
    "over HTTP/1.1, %s",
    async (framing) => {
      const server = createServer();
      const port = await listening(server);
      const socket = connect(port, "127.0.0.1");
      socket.write(`POST / HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`);
      const [request, response] = await once(server, "request");
      const call = new NodeHttpCall(request, response, "/", 2_000_000);
      const gone = once(response, "close");
      socket.destroy();
      await gone;
      await expect(call.content()).rejects.toThrow("unexpected EOF");
      await expect(call.body()).rejects.toThrow("unexpected EOF");
      server.close();
    },
  );

  test("over HTTP/2", async () => {
    const server = createHttp2Server();
    const session = connectHttp2(`http://127.0.0.1:${await listening(server)}`);
    const stream = session.request({ ":method": "POST", ":path": "/" });
    stream.on("error", () => {});
    const [request, response] = await once(server, "request");
    request.stream.on("error", () => {});
    const call = new Http2Call(request, response, "/", 2_000_000);
    const gone = once(request.stream, "close");
    stream.destroy();
    await gone;
    await expect(call.content()).rejects.toThrow("unexpected EOF");
    await expect(call.body()).rejects.toThrow("unexpected EOF");
    session.destroy();
    server.close();
  });
});
