"""An OTLP receiver on the published messages (package opentelemetry-proto): HTTP and gRPC, one JSON line per span.

Arguments: HTTP port, gRPC port. Prints `ready` first, then what arrives.
"""

import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as stubs


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def show(request, headers):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                line = {
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "headers": headers,
                    "traceId": span.trace_id.hex(),
                    "spanId": span.span_id.hex(),
                    "parentSpanId": span.parent_span_id.hex(),
                    "traceState": span.trace_state,
                    "name": span.name,
                    "kind": span.SpanKind.Name(span.kind)[len("SPAN_KIND_") :].lower(),
                    "startNs": str(span.start_time_unix_nano),
                    "endNs": str(span.end_time_unix_nano),
                    "attributes": attributes(span.attributes),
                    "error": span.status.message if span.status.code == 2 else None,
                }
                # In one piece: requests are taken by several threads.
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        if known:
            show(service.ExportTraceServiceRequest.FromString(body), dict(self.headers))
        answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Grpc(stubs.TraceServiceServicer):
    def Export(self, request, context):
        show(request, dict(context.invocation_metadata()))
        return service.ExportTraceServiceResponse()


def main(http_port, grpc_port):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    stubs.add_TraceServiceServicer_to_server(Grpc(), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", int(http_port)), Http)
    print("ready", flush=True)
    web.serve_forever()


main(*sys.argv[1:])
