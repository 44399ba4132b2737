/** A server outside the mesh, over HTTP or HTTPS, that records what it is asked and answers as told. */
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { TLSSocket, TlsOptions } from "node:tls";
import { freePort } from "./ports.ts";

export type OutsideRequest = {
  readonly method: string;
  /** Path and query as on the wire. */
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly rawHeaders: readonly string[];
  readonly body: string;
  /** Common name of the client's certificate. */
  readonly client: string | undefined;
  readonly tlsVersion: string | undefined;
};

export type OutsideReply = {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
};

export type Outside = AsyncDisposable & {
  readonly port: number;
  readonly requests: OutsideRequest[];
  /** Answers the next requests; 200 with a JSON summary until it is set. */
  answer: (request: OutsideRequest) => OutsideReply | Promise<OutsideReply>;
};

/** Starts a server on a free loopback port; with `tls` it speaks HTTPS. */
export async function startOutside(tls?: TlsOptions): Promise<Outside> {
  const port = await freePort();
  const requests: OutsideRequest[] = [];
  const outside = {
    port,
    requests,
    answer: (({ method, url }) => ({ body: `${method} ${url}` })) as Outside["answer"],
  };
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const request = await read(incoming).catch(() => undefined);
    // The client has gone in the middle of its request.
    if (request === undefined) return void outgoing.destroy();
    requests.push(request);
    const { status = 200, headers = {}, body = "" } = await outside.answer(request);
    outgoing.writeHead(status, headers).end(body);
  };
  const listener: RequestListener = (incoming, outgoing) => void serve(incoming, outgoing);
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return Object.assign(outside, {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

async function read(incoming: IncomingMessage): Promise<OutsideRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const socket = incoming.socket as Partial<TLSSocket>;
  return {
    method: incoming.method ?? "",
    url: incoming.url ?? "",
    headers: incoming.headers,
    rawHeaders: incoming.rawHeaders,
    body: Buffer.concat(chunks).toString("utf8"),
    client: commonName(socket),
    tlsVersion: socket.getProtocol?.() ?? undefined,
  };
}

function commonName(socket: Partial<TLSSocket>): string | undefined {
  const name = socket.getPeerCertificate?.().subject?.CN;
  return Array.isArray(name) ? name[0] : name;
}
