"""A user's app in plain Python over HTTP, which uses the unmodified Python SDK only as a client."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dapr.clients import DaprClient

me = os.environ["APP_ID"]
seen = []
SUBSCRIPTIONS = [
    {"pubsubname": "bus", "topic": "orders.created", "route": "/events/orders"},
    {"pubsubname": "bus", "topic": "flaky", "routes": {"default": "/events/flaky"}},
]


def ask(wanted):
    with DaprClient() as client:
        answer = client.invoke_method(
            wanted["app"], "price", json.dumps(wanted["order"]), "application/json", http_verb="POST"
        )
    return {"answer": json.loads(answer.text())}


def receive(handler, event):
    first = not any(it["handler"] == handler for it in seen)
    seen.append({"handler": handler, "event": event})
    return {"status": "RETRY" if handler == "flaky" and first else "SUCCESS"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        body = self.read_body()
        path, _, query = self.path.partition("?")
        if path == "/dapr/subscribe":
            return self.answer(200, SUBSCRIPTIONS)
        if path == "/price":
            order = json.loads(body)
            caller = self.headers.get("dapr-caller-app-id", "")
            return self.answer(200, {"total": order["quantity"] * 5, "by": me, "caller": caller})
        if path == "/echo":
            told = {"verb": self.command, "query": query, "body": body.decode(), "x": self.headers.get("x-custom")}
            return self.answer(200, told, [("x-answer", "42")])
        if path == "/refuse":
            return self.answer(409, {"why": "this app refuses"})
        if path == "/ask":
            return self.answer(200, ask(json.loads(body)))
        if path == "/seen":
            return self.answer(200, seen)
        if path == "/orders":
            return self.answer(200, receive("orders", json.loads(body)))
        if path.startswith("/events/"):
            return self.answer(200, receive(path.removeprefix("/events/"), json.loads(body)))
        return self.answer(404, {"path": path})

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = handle_any

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(parts)

    def answer(self, status, value, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), Handler).serve_forever()
