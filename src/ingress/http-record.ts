/** Metrics of the HTTP API: one record a request, once its answer is sent. Made anew when their settings change. */
import type { Metrics } from "../telemetry/metrics.ts";
import type { IncomingCall } from "./http-call.ts";

/** Label sets whose series are found in one look-up; others take one for each metric. */
const maxKnown = 1_000;

export type HttpRecord = (call: IncomingCall, status: number, latencyMs: number, sentBytes: number) => void;

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
  const open = (...values: [string, string, string]): ((latencyMs: number) => void) => {
    const [request, response, took] = [
      requests.at(...values),
      responses?.at(...values),
      latency.at(...values),
    ];
    return (latencyMs) => {
      request();
      response?.();
      took(latencyMs);
    };
  };
  const known = new Map<string, ReturnType<typeof open>>();
  let receivedBytes: ((sizeBytes: number) => void) | undefined;
  let sentBytes: ((sizeBytes: number) => void) | undefined;
  return (call, status, latencyMs, sizeBytes) => {
    const method = http.method(call.verb);
    const path = http.path(call.path);
    const key = `${status} ${method} ${path}`;
    let record = known.get(key);
    if (record === undefined) {
      record = open(method, path, String(status));
      if (known.size < maxKnown) known.set(key, record);
    }
    record(Math.trunc(latencyMs));
    // A metric is there from its first record on.
    receivedBytes ??= received.at();
    receivedBytes(Number(call.headers["content-length"] ?? 0));
    sentBytes ??= sent.at();
    sentBytes(sizeBytes);
  };
}
