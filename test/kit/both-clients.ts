/** An HTTP app called by both of the sidecar's clients: our own, and undici's, which serves all but plain HTTP/1.1. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { systemClock } from "../../mesh/index.ts";
import { HttpApp } from "../../src/app/http.ts";
import { tlsConnector } from "../../src/app/tls-connector.ts";

export const maxHeaderBytes = 4096;

/** An app that is what `serve` does with each connection. Ends with all its connections. */
export async function rawApp(serve: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    serve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    connections: sockets,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      if (server.listening) await once(server, "close");
    },
  };
}

/** A client of the app on this port, ended at the end of the scope. */
export function client(port: number, which: "own" | "undici" = "own", clock = systemClock) {
  const tls = {
    rootCA: "",
    certificate: undefined,
    privateKey: undefined,
    renegotiation: false,
    verify: true,
  };
  const app = new HttpApp({
    scheme: "http",
    host: "127.0.0.1",
    port,
    apiToken: undefined,
    maxHeaderBytes,
    clock,
    // What an app on plain HTTP/1.1 has not got.
    ...(which === "undici" ? { connect: tlsConnector(tls, clock) } : {}),
  });
  return Object.assign(app, { [Symbol.asyncDispose]: () => app.close() });
}
