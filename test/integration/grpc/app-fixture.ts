/** Clients and grpc-js servers for the tests of the app side. */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall, Metadata } from "@grpc/grpc-js";
import { type AddressInfo } from "node:net";
import { systemClock } from "../../../mesh/index.ts";
import { GrpcStatusError } from "../../../src/api/grpc-status-error.ts";
import { createGrpcAppClient, type GrpcAppClient } from "../../../src/app/grpc.ts";
import { recorder } from "./fixture.ts";

export const MiB = 1024 * 1024;
export const never = new AbortController().signal;

export function appClient(
  port: number,
  extra: { apiToken?: string; maxMessageBytes?: number; tls?: boolean } = {},
): GrpcAppClient & Disposable {
  const client = createGrpcAppClient({
    host: "127.0.0.1",
    port,
    tls: false,
    maxMessageBytes: 4 * MiB,
    clock: systemClock,
    log: recorder().log,
    ...extra,
  });
  return { ...client, [Symbol.dispose]: () => client.close() };
}

export async function failure(promise: Promise<unknown>): Promise<GrpcStatusError> {
  const error = await promise.then(
    () => new Error("the call succeeded"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof GrpcStatusError)) throw error;
  return error;
}

export type Handler = (
  message: Buffer,
  metadata: Metadata,
) => { message?: Buffer; headers?: Metadata; trailers?: Metadata };

/** A grpc-js server whose `/t.T/Unary` is the handler and `/t.T/Echo` echoes a stream of bytes. */
export async function byteServer(
  handle: Handler,
  port?: number,
): Promise<AsyncDisposable & { readonly port: number }> {
  const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
  const same = (bytes: Buffer): Buffer => bytes;
  const common = {
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  server.addService(
    {
      unary: { path: "/t.T/Unary", requestStream: false, responseStream: false, ...common },
      echo: { path: "/t.T/Echo", requestStream: true, responseStream: true, ...common },
    },
    {
      unary: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
        const { message, headers, trailers } = handle(call.request, call.metadata);
        if (headers !== undefined) call.sendMetadata(headers);
        if (message !== undefined) callback(null, message, trailers);
      },
      echo: (call: ServerDuplexStream<Buffer, Buffer>): void => {
        call.on("data", (bytes: Buffer) => {
          if (!call.write(bytes)) call.pause().once("drain", () => call.resume());
        });
        call.on("end", () => call.end());
      },
    },
  );
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port ?? 0}`, ServerCredentials.createInsecure(), (error, at) =>
      error === null ? resolve(at) : reject(error),
    ),
  );
  return {
    port: bound,
    [Symbol.asyncDispose]: () => {
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

export async function listen(server: {
  listen(port: number, host: string, done: () => void): unknown;
  address(): unknown;
}): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
