/** Metrics of what the sidecar asks of its app, over HTTP and gRPC; health probes are counted apart. */
import type { BodyStream, Clock, MeshRequest, MeshResponse } from "../../mesh/index.ts";
import { GrpcCode, grpcCodeName } from "../api/errors.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";
import type { GrpcAppClient } from "./grpc.ts";
import type { HttpApp } from "./http.ts";

export type MeasuredHttp = Pick<HttpApp, "invoke" | "http" | "endTunnels" | "close"> & {
  /** A health probe; any status is an answer. */
  probe(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse>;
};

/** The label of an answer that did not come. */
const noAnswer = "500";

/** Counts and times one call of an HTTP server; `rawPath` is what it is labelled by. */
export type MeasureHttp = <A extends { readonly status: number; readonly body: Uint8Array | BodyStream }>(
  request: { readonly verb: string; readonly body: Uint8Array | BodyStream | undefined },
  rawPath: string,
  call: () => Promise<A>,
) => Promise<A>;

/** Servers outside the mesh count beside the app, as with Dapr. */
export function createMeasureHttp(metrics: Metrics, clock: Clock): MeasureHttp {
  const labels = ["method", "path", "status"];
  const sent = metrics.size("http_client_sent_bytes", "Size of requests to the app, bytes.", labels);
  const received = metrics.size("http_client_received_bytes", "Size of answers of the app, bytes.", []);
  const latency = metrics.latency(
    "http_client_roundtrip_latency",
    "Time to the head of the app's answer, ms.",
    labels,
  );
  const count = metrics.count("http_client_completed_count", "Requests to the app that ended.", labels);
  return async (request, rawPath, call) => {
    const method = metrics.http.method(request.verb);
    const path = metrics.http.path(rawPath);
    sent(request.body?.length ?? 0, method, path, "");
    const startMs = clock.monotonicMs();
    let status = noAnswer;
    try {
      const answer = await call();
      status = String(answer.status);
      received(answer.body.length ?? 0);
      return answer;
    } finally {
      latency(Math.trunc(clock.monotonicMs() - startMs), method, path, status);
      count(method, path, status);
    }
  };
}

export function measuredHttp(http: HttpApp, metrics: Metrics, clock: Clock): MeasuredHttp {
  const measure = createMeasureHttp(metrics, clock);
  const probes = probeMetrics(metrics, "http_healthprobes", "status");
  return {
    // Dapr labels a method as its caller named it, and other paths as they are.
    invoke: (request: MeshRequest, signal: AbortSignal, onDone?: () => void): Promise<MeshResponse> =>
      measure(request, request.path.slice(1), () => http.invoke(request, signal, onDone)),
    http: (request, signal) => measure(request, pathOf(request.path), () => http.http(request, signal)),
    endTunnels: () => http.endTunnels(),
    close: () => http.close(),
    async probe(request, signal) {
      const startMs = clock.monotonicMs();
      let status = noAnswer;
      try {
        const answer = await http.http(request, signal);
        status = String(answer.status);
        return answer;
      } finally {
        probes(clock.monotonicMs() - startMs, status);
      }
    },
  };
}

/** Dapr asks for the list of subscriptions without the slash, and it is labelled so. */
function pathOf(target: string): string {
  if (target === "/dapr/subscribe") return "dapr/subscribe";
  const mark = target.indexOf("?");
  return mark < 0 ? target : target.slice(0, mark);
}

/** `probePath` is the method of health probes. */
export function measuredGrpc(
  client: GrpcAppClient,
  probePath: string,
  metrics: Metrics,
  clock: Clock,
): GrpcAppClient {
  const ended = ["grpc_client_method", "grpc_client_status"];
  const name = "grpc_io_client";
  const count = metrics.count(`${name}_completed_rpcs`, "Calls of the app that ended.", ended);
  const latency = metrics.latency(`${name}_roundtrip_latency`, "Time to the app's answer, ms.", ended);
  const sizes = ["grpc_client_method"];
  const sent = metrics.size(`${name}_sent_bytes_per_rpc`, "Size of messages to the app, bytes.", sizes);
  const received = metrics.size(
    `${name}_received_bytes_per_rpc`,
    "Size of the app's messages, bytes.",
    sizes,
  );
  const probes = probeMetrics(metrics, "grpc_io_healthprobes", "grpc_client_status");
  return {
    ...client,
    async unary(request, signal) {
      const probe = request.path === probePath;
      const startMs = clock.monotonicMs();
      let code: number = GrpcCode.OK;
      try {
        const answer = await client.unary(request, signal);
        if (!probe) received(answer.message.length, request.path);
        return answer;
      } catch (error) {
        code = error instanceof GrpcStatusError ? error.code : GrpcCode.Unknown;
        throw error;
      } finally {
        const latencyMs = clock.monotonicMs() - startMs;
        const status = grpcCodeName(code);
        if (probe) probes(latencyMs, status);
        else {
          sent(request.message.length, request.path);
          count(request.path, status);
          latency(Math.trunc(latencyMs), request.path, status);
        }
      }
    },
  };
}

function probeMetrics(
  metrics: Metrics,
  name: string,
  label: string,
): (latencyMs: number, status: string) => void {
  const count = metrics.count(`${name}_completed_count`, "Health probes of the app that ended.", [label]);
  const latency = metrics.latency(`${name}_roundtrip_latency`, "Time of health probes of the app, ms.", [
    label,
  ]);
  return (latencyMs, status) => {
    count(status);
    latency(Math.trunc(latencyMs), status);
  };
}
