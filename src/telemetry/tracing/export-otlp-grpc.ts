/** OTLP over gRPC: one unary method, on node:http2 as all gRPC of the sidecar. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
} from "node:http2";
import type { OtelSettings } from "../../config/kinds/configuration.ts";
import { encodeFrame, percentDecode } from "../../lib/grpc-wire.ts";
import type { SpanExporter } from "./batch.ts";
import { type Attributes, OtlpBatch, OtlpForm } from "./otlp-encode.ts";
import { exportTimeoutMs, otlpHeaders } from "./otlp-settings.ts";

const method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

export function createExporter(
  otel: OtelSettings,
  resource: Attributes,
  scope: string,
): SpanExporter<OtlpBatch> {
  const origin = `${otel.isSecure ? "https" : "http"}://${otel.endpoint}`;
  const head = {
    ...otlpHeaders(otel),
    ":method": "POST",
    ":path": method,
    te: "trailers",
    "content-type": "application/grpc",
    "user-agent": "weft",
  };
  const form = new OtlpForm(resource, scope);
  const timeoutMs = exportTimeoutMs(otel);
  let session: ClientHttp2Session | undefined;

  const open = (): ClientHttp2Session => {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    session = connect(origin);
    // A broken connection is told by its streams; the next export dials anew.
    session.on("error", () => {});
    session.unref();
    return session;
  };
  return {
    name: "otlp-grpc",
    begin: () => new OtlpBatch(form),
    async export(spans) {
      const stream = open().request(head);
      stream.setTimeout(timeoutMs, () => stream.destroy(new Error(`no answer within ${timeoutMs} ms`)));
      stream.end(encodeFrame(Buffer.concat(spans.pieces())));
      await outcome(stream, origin);
    },
    close: () => session?.destroy(),
  };
}

/** Resolves for status OK. Rejects with Error naming the address. */
function outcome(stream: ClientHttp2Stream, origin: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (why: string): void => reject(new Error(`${origin}: ${why}`));
    const read = (headers: IncomingHttpHeaders): void => {
      const code = headers["grpc-status"];
      if (code === "0") resolve();
      else if (code !== undefined)
        failed(`gRPC status ${String(code)} ${percentDecode(String(headers["grpc-message"] ?? ""))}`);
    };
    stream.once("response", (headers) => {
      const status = Number(headers[":status"]);
      if (status === 200) read(headers);
      else failed(`HTTP status ${status}, this is no gRPC server`);
    });
    stream.once("trailers", read);
    stream.once("error", (error) => failed(error.message === "" ? String(error) : error.message));
    stream.once("close", () => failed("the connection ended before an answer"));
    stream.resume();
  });
}
