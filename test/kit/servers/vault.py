"""Stands in for HashiCorp Vault: its documented HTTP API as far as a key/value engine of version 2 and tokens go.

Arguments: port, state file, and for TLS the files of certificate and key. The engine is mounted at `secret`; the root
token is `root-token`. What is written is kept in the state file and is there again after a restart.
"""

import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit

PORT, STATE = int(sys.argv[1]), Path(sys.argv[2])
MOUNT = "secret/"
LOCK = Lock()
# sealed; tokens to their policies; path to versions {"data", "deletion_time", "destroyed"}
HELD = {"sealed": False, "standby": "", "tokens": {"root-token": ["root"]}, "secrets": {}, "policies": {}}
if STATE.exists():
    HELD.update(json.loads(STATE.read_text()))


def allowed(token, capability, path):
    for policy in HELD["tokens"].get(token, []):
        if policy == "root":
            return True
        for prefix, capabilities in HELD["policies"].get(policy, {}).items():
            if path.startswith(prefix) and capability in capabilities:
                return True
    return False


class Refused(Exception):
    def __init__(self, status, errors):
        self.status, self.body = status, {"errors": errors}


def wrapped(data):
    rest = {"lease_id": "", "renewable": False, "lease_duration": 0, "wrap_info": None, "warnings": None, "auth": None}
    return {"request_id": "a", **rest, "data": data, "mount_type": "kv"}


def read(path, query):
    versions = HELD["secrets"].get(path)
    if not versions:
        raise Refused(404, [])
    number = int(query.get("version", ["0"])[0]) or len(versions)
    if number > len(versions):
        raise Refused(404, [])
    one = versions[number - 1]
    about = {"created_time": one["created"], "custom_metadata": None, "version": number}
    about |= {"deletion_time": one["deletion_time"], "destroyed": one["destroyed"]}
    gone = one["deletion_time"] != "" or one["destroyed"]
    return (404 if gone else 200), wrapped({"data": None if gone else one["data"], "metadata": about})


def write(path, body):
    versions = HELD["secrets"].setdefault(path, [])
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    versions.append({"data": body["data"], "created": now, "deletion_time": "", "destroyed": False})
    return 200, wrapped({"version": len(versions), "created_time": now, "deletion_time": "", "destroyed": False})


def names(path):
    folder = path if path == "" or path.endswith("/") else path + "/"
    found = set()
    for name in HELD["secrets"]:
        if name.startswith(folder):
            head, slash, _ = name[len(folder) :].partition("/")
            found.add(head + slash)
    if not found:
        raise Refused(404, [])
    return 200, wrapped({"keys": sorted(found)})


def system(method, path, body):
    if path == "sys/seal":
        HELD["sealed"] = True
    elif path == "sys/unseal":
        HELD["sealed"] = False
    elif path.startswith("sys/policies/acl/"):
        # The rules of a real policy are HCL; here they come as JSON: path prefix to capabilities.
        HELD["policies"][path.rpartition("/")[2]] = body["rules"]
    elif path == "auth/token/create":
        HELD["tokens"][body["id"]] = body["policies"]
        return 200, {"auth": {"client_token": body["id"]}}
    elif path == "auth/token/revoke":
        HELD["tokens"].pop(body["token"], None)
    elif path == "test/standby":
        # Not of the API: makes this a node that names the active one.
        HELD["standby"] = body["active"]
    else:
        raise Refused(404, [f'no handler for route "{path}". route entry not found.'])
    return 204, None


def secret(method, path, query, body, token):
    capability = {"GET": "read", "LIST": "list", "DELETE": "delete"}.get(method, "create")
    if method == "GET" and query.get("list") == ["true"]:
        method, capability = "LIST", "list"
    if not allowed(token, capability, MOUNT + path):
        raise Refused(403, ["1 error occurred:\n\t* permission denied\n\n"])
    part, _, name = path.partition("/")
    if part == "metadata" and method == "LIST":
        return names(name)
    if part == "metadata" and method == "DELETE":
        HELD["secrets"].pop(name, None)
        return 204, None
    if part == "data" and method == "GET":
        return read(name, query)
    if part == "data" and method in ("POST", "PUT"):
        return write(name, body)
    if part == "data" and method == "DELETE":
        HELD["secrets"][name][-1]["deletion_time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return 204, None
    raise Refused(405, ["unsupported operation"])


def answer(method, target, headers, raw):
    url = urlsplit(target)
    path = unquote(url.path).removeprefix("/v1/")
    token = headers.get("X-Vault-Token", "")
    if path == "sys/health":
        return (503 if HELD["sealed"] else 200), {"initialized": True, "sealed": HELD["sealed"]}
    if HELD["sealed"] and path != "sys/unseal":
        raise Refused(503, ["Vault is sealed"])
    if path.startswith(MOUNT):
        if HELD["standby"]:
            return 307, HELD["standby"] + target
        if token not in HELD["tokens"]:
            raise Refused(403, ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"])
        body = json.loads(raw) if raw else {}
        return secret(method, path.removeprefix(MOUNT), parse_qs(url.query), body, token)
    if path != "sys/unseal" and not allowed(token, "sudo", path):
        raise Refused(403, ["permission denied"])
    return system(method, path, json.loads(raw) if raw else {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            try:
                status, body = answer(self.command, self.path, self.headers, raw)
            except Refused as refused:
                status, body = refused.status, refused.body
            # In one step: it may be killed at any time.
            fresh = STATE.with_suffix(".new")
            fresh.write_text(json.dumps(HELD))
            fresh.replace(STATE)
        text = b"" if body is None or status == 307 else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        self.send_response(status)
        if status == 307:
            self.send_header("Location", body)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = do_LIST = serve

    def log_message(self, *_):
        print(self.command, self.path, flush=True)


# Many clients may connect at once.
ThreadingHTTPServer.request_queue_size = 128
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
