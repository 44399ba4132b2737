"""Stands in for the API of Kubernetes: the documented HTTP API as far as secrets go, over TLS.

Arguments: port, state file, files of certificate and key, file of the authority of client certificates, and a file of
tokens as `kube-apiserver --token-auth-file` takes it (`token,user,uid` a line), read at each request. The user `admin`
may do all; `reader` may get secrets of the namespace `default`; others nothing.
"""

import base64
import json
import re
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit

PORT, STATE, CERT, KEY, CLIENT_CA, TOKENS = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:7]
LOCK = Lock()
# Namespace to name to data
SECRETS = json.loads(STATE.read_text()) if STATE.exists() else {}
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid"}


class Refused(Exception):
    def __init__(self, code, message):
        self.code = code
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        self.body = status | {"message": message, "reason": REASONS[code]}


def user_of(headers, certificate):
    for field in (certificate or {}).get("subject", ()):
        if field[0][0] == "commonName":
            return field[0][1]
    kind, _, value = headers.get("Authorization", "").partition(" ")
    lines = [line.split(",") for line in Path(TOKENS).read_text().splitlines()]
    if kind == "Bearer":
        for token, user, _ in lines:
            if token == value:
                return user
    raise Refused(401, "Unauthorized")


def check(user, verb, namespace, name):
    if user == "admin" or (user == "reader" and verb == "get" and namespace == "default"):
        return
    what = f'secrets "{name}" is forbidden' if name else "secrets is forbidden"
    why = f'User "{user}" cannot {verb} resource "secrets" in API group "" in the namespace "{namespace}"'
    raise Refused(403, f"{what}: {why}")


def resource(namespace, name):
    about = {"name": name, "namespace": namespace, "uid": "u", "resourceVersion": "1"}
    data = SECRETS[namespace][name]
    return {"metadata": about, "type": "Opaque"} | ({"data": data} if data else {})


def listed(namespace, query):
    names = sorted(SECRETS.get(namespace, {}))
    first = int(base64.b64decode(query.get("continue", ["MA=="])[0]))
    last = first + int(query.get("limit", ["500"])[0])
    about = {"resourceVersion": "1"}
    if last < len(names):
        about["continue"] = base64.b64encode(str(last).encode()).decode()
        about["remainingItemCount"] = len(names) - last
    items = [resource(namespace, name) for name in names[first:last]]
    return {"kind": "SecretList", "apiVersion": "v1", "metadata": about, "items": items}


def create(namespace, body):
    name, data = body["metadata"]["name"], body.get("data", {})
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise Refused(422, f'Secret "{name}" is invalid: metadata.name')
    for field in data:
        if not re.fullmatch(r"[-._a-zA-Z0-9]+", field):
            raise Refused(422, f'Secret "{name}" is invalid: data[{field}]')
    if name in SECRETS.get(namespace, {}):
        raise Refused(409, f'secrets "{name}" already exists')
    SECRETS.setdefault(namespace, {})[name] = data
    return resource(namespace, name)


def answer(method, target, user, raw):
    url = urlsplit(target)
    match = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets(?:/([^/]+))?", url.path)
    if match is None:
        raise Refused(404, "the server could not find the requested resource")
    namespace, name = unquote(match[1]), unquote(match[2] or "")
    if method == "POST":
        check(user, "create", namespace, name)
        return 201, create(namespace, json.loads(raw))
    check(user, "get" if name else "list", namespace, name)
    if not name:
        return 200, listed(namespace, parse_qs(url.query))
    if name not in SECRETS.get(namespace, {}):
        raise Refused(404, f'secrets "{name}" not found')
    return 200, {"kind": "Secret", "apiVersion": "v1"} | resource(namespace, name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            try:
                user = user_of(self.headers, self.connection.getpeercert())
                code, body = answer(self.command, self.path, user, raw)
            except Refused as refused:
                code, body = refused.code, refused.body
            # In one step: it may be killed at any time.
            fresh = STATE.with_suffix(".new")
            fresh.write_text(json.dumps(SECRETS))
            fresh.replace(STATE)
        text = json.dumps(body, separators=(",", ":")).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = serve

    def log_message(self, *_):
        print(self.command, self.path, flush=True)


# Many clients may connect at once.
ThreadingHTTPServer.request_queue_size = 128
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERT, KEY)
context.load_verify_locations(CLIENT_CA)
context.verify_mode = ssl.CERT_OPTIONAL
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
