/** A gRPC server of ours with a few real methods and programmable answers, and what its log and metrics got. */
import { systemClock } from "../../../mesh/index.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcCall, type GrpcMethod, streaming, unary } from "../../../src/api/grpc.ts";
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from "../../../src/ingress/grpc.ts";
import type { Log } from "../../../src/telemetry/log.ts";
import { type Metrics, noMetrics } from "../../../src/telemetry/metrics.ts";
import { grpcClient, type GrpcClient } from "../../kit/grpc-client.ts";

export type Recorder = {
  readonly log: Log;
  readonly lines: string[];
  readonly metrics: Metrics;
  /** `method status` of completed calls. */
  readonly completed: string[];
};

export function recorder(): Recorder {
  const lines: string[] = [];
  const completed: string[] = [];
  const write =
    (level: string) =>
    (message: string): void =>
      void lines.push(`${level} ${message}`);
  const log: Log = {
    debug: write("debug"),
    info: (message, fields) => void lines.push(`info ${message} ${JSON.stringify(fields)}`),
    warn: write("warn"),
    error: write("error"),
    fatal: write("fatal"),
    always: (message, fields) => void lines.push(`info ${message} ${JSON.stringify(fields)}`),
    scope: () => log,
  };
  const metrics: Metrics = {
    ...noMetrics,
    count: (name) =>
      Object.assign(
        (...labels: string[]) => {
          if (name === "grpc_io_server_completed_rpcs") completed.push(labels.join(" "));
        },
        { at: () => () => {} },
      ),
  };
  return { log, lines, metrics, completed };
}

export type ServerFixture = AsyncDisposable &
  Recorder & { readonly server: GrpcServer; readonly port: number; readonly client: GrpcClient };

type Options = Partial<Omit<GrpcServerOptions, "methods">>;

export async function startServer(
  methods: GrpcServerOptions["methods"] | readonly GrpcMethod[],
  options: Options = {},
): Promise<ServerFixture> {
  const recorded = recorder();
  const server = createGrpcServer({
    methods: typeof methods === "function" ? methods : () => methods,
    maxMessageBytes: 4 * 1024 * 1024,
    clock: systemClock,
    log: recorded.log,
    metrics: recorded.metrics,
    ...options,
  });
  const port = await server.listen({ host: "127.0.0.1", port: 0 });
  const client = grpcClient(port);
  return {
    ...recorded,
    server,
    port,
    client,
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      await server.close(0);
    },
  };
}

type GetState = Parameters<
  typeof unary<typeof Dapr.method.getState.input, typeof Dapr.method.getState.output>
>[1];

export function getState(handle: GetState): GrpcMethod {
  return unary(Dapr.method.getState, handle);
}

/** Sends every payload of the encryption stream back; `seen` counts what has been taken from the client. */
export function echo(seen: { messages: number } = { messages: 0 }): GrpcMethod {
  return streaming(Dapr.method.encryptAlpha1, async function* (requests) {
    for await (const { payload } of requests) {
      seen.messages++;
      yield { payload: { data: payload?.data ?? new Uint8Array(0), seq: payload?.seq ?? 0n } };
    }
  });
}

/** Resolves with the reason when the call's signal is aborted. */
export function aborted(call: GrpcCall): Promise<unknown> {
  return new Promise((resolve) => {
    const { signal } = call;
    if (signal.aborted) resolve(signal.reason);
    else signal.addEventListener("abort", () => resolve(signal.reason), { once: true });
  });
}
