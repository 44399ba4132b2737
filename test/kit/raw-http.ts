/**
 * HTTP by hand: a request as written bytes, and an app that answers with written bytes. For what no client would send.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { freePort } from "./ports.ts";

/** Sends bytes and reads until the peer ends the connection (ask for `Connection: close`). Text is latin1 both ways. */
export function rawHttp(port: number, request: string, timeoutMs = 10_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let answer = "";
    socket.setEncoding("latin1");
    socket.setTimeout(timeoutMs, () =>
      socket.destroy(new Error(`no end of the answer within ${timeoutMs} ms: ${answer}`)),
    );
    socket.on("error", reject);
    socket.on("data", (chunk: string) => (answer += chunk));
    socket.on("close", () => resolve(answer));
    socket.write(request, "latin1");
  });
}

/** Sends requests on one connection, each after the head of the answer before it. Resolves with the heads. */
export async function inTurn(
  port: number,
  requests: readonly string[],
  timeoutMs = 10_000,
): Promise<string[]> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.setEncoding("latin1");
  socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)));
  socket.on("close", () => socket.emit("error", new Error("the connection was closed")));
  const answers: string[] = [];
  try {
    for (const request of requests) {
      socket.write(request, "latin1");
      let answer = "";
      while (!answer.includes("\r\n\r\n")) {
        const [chunk] = (await once(socket, "data")) as [string];
        answer += chunk;
      }
      answers.push(answer);
    }
    return answers;
  } finally {
    socket.removeAllListeners("close").on("error", () => {});
    socket.destroy();
  }
}

export type RawApp = AsyncDisposable & {
  readonly port: number;
  /** Request heads so far. */
  readonly requests: string[];
  /** What is written for each request; the connection is closed after it. */
  answer: string;
};

/** An app that writes prepared bytes once the head of a request has come. */
export async function startRawApp(): Promise<RawApp> {
  const port = await freePort();
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const app = { port, requests, answer: "HTTP/1.1 204 No Content\r\n\r\n" };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    let head = "";
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      head += chunk;
      if (!head.includes("\r\n\r\n")) return;
      requests.push(head);
      head = "";
      socket.end(app.answer, "latin1");
    });
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return Object.assign(app, {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}
