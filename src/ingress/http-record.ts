/** Metrics of the HTTP API: one record a request, once its answer is sent. */
import type { Metrics } from "../telemetry/metrics.ts";
import type { NodeHttpCall } from "./http-call.ts";

export type HttpRecord = (call: NodeHttpCall, status: number, latencyMs: number, sentBytes: number) => void;

export function createHttpRecord(metrics: Metrics): HttpRecord {
  const labels = ["method", "path", "status"];
  const { http } = metrics;
  const requests = metrics.count("http_server_request_count", "HTTP requests started by the server.", labels);
  const responses = http.detailed
    ? metrics.count("http_server_response_count", "HTTP answers of the server.", labels)
    : undefined;
  const latency = metrics.latency("http_server_latency", "End-to-end latency of HTTP requests, ms.", labels);
  const received = metrics.size("http_server_request_bytes", "Size of HTTP requests, bytes.", []);
  const sent = metrics.size("http_server_response_bytes", "Size of HTTP answers, bytes.", []);
  return (call, status, latencyMs, sentBytes) => {
    const method = http.method(call.verb);
    const path = http.path(call.path);
    const code = String(status);
    requests(method, path, code);
    responses?.(method, path, code);
    latency(Math.trunc(latencyMs), method, path, code);
    received(Number(call.headers["content-length"] ?? 0));
    sent(sentBytes);
  };
}
