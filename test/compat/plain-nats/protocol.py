"""
The Weft mesh protocol as mesh/README.md describes it, for programs that have only nats-py and msgpack: names, frames
and the two forms of a call. Knows nothing of Weft's own code.
"""

import hashlib
import re
import struct

import msgpack

PREFIX = struct.Struct(">BBI")
VERSION = 1
REQUEST, RESPONSE, ERROR, PROGRESS, CANCEL = 1, 2, 3, 4, 5
ACCEPT, CHUNK, END, CREDIT = 6, 7, 8, 9
MAX_HEAD = 512 * 1024
MAX_NAME_PART = 180
MAX_NAME = 240
MAX_KEY = 2800
MAX_KEPT = 2733


def escape(text, kept, mark):
    return "".join(chr(byte) if kept.match(chr(byte)) else f"{mark}{byte:02X}" for byte in text.encode())


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def token(text):
    """One subject token for any text."""
    return "=" if text == "" else escape(text, re.compile(r"[A-Za-z0-9_-]"), "=")


def text_of(encoded):
    """The text of a token."""
    if encoded == "=":
        return ""
    return re.sub(rb"=([0-9A-F]{2})", lambda hit: bytes([int(hit[1], 16)]), encoded.encode()).decode()


def name(*parts):
    """Name of a stream, bucket or group."""
    encoded = []
    for part in parts:
        short = "_" if part == "" else escape(part, re.compile(r"[A-Za-z0-9-]"), "_")
        encoded.append(short if len(short) <= MAX_NAME_PART else "_h" + sha256(part))
    joined = "__".join(encoded)
    return joined if len(joined) <= MAX_NAME else "_h" + sha256(joined)


def key(*parts):
    """Key of a table as KV clients write it."""
    encoded = ".".join(token(part) for part in parts)
    if len(encoded) <= MAX_KEY:
        return encoded
    dot = encoded.rfind(".", 0, MAX_KEPT + 1)
    return (encoded[: dot + 1] if dot >= 0 else "") + "=h" + sha256(encoded)


def topic_subject(base, topic):
    return base + "." + ".".join(token(part) for part in topic.split("."))


def keyed_subject(base, key, topic):
    """Where an event with a key is published: the third token of `base`, `topic`, is `keyed` there."""
    root, namespace, _, component = base.split(".")
    return topic_subject(".".join([root, namespace, "keyed", component, token(key)]), topic)


def timed_subject(base, event_id, topic):
    """Where an event waits until it is due."""
    root, namespace, _, component = base.split(".")
    return topic_subject(".".join([root, namespace, "timed", "=", component, token(event_id)]), topic)


def partition(key, count=16):
    """Which partition NATS chooses for a key: FNV-1a over its token."""
    found = 0x811C9DC5
    for byte in token(key).encode():
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found % count


def topic_filter(base, topic):
    """As topic_subject; parts that are `*`, and a last part `>`, stay wildcards."""
    parts = topic.split(".")
    wild = lambda n, part: part == "*" or (part == ">" and n == len(parts) - 1)
    return base + "." + ".".join(part if wild(n, part) else token(part) for n, part in enumerate(parts))


def call_subject(form, app, caller, namespace="default", caller_namespace="default", root="weft"):
    """`form` is rpc, call or cancel."""
    return ".".join([token(root), token(namespace), form, token(app), token(caller_namespace), token(caller)])


def stream_subject(app, instance, stream, caller, namespace="default", caller_namespace="default", root="weft"):
    """Where the caller's frames of a call with streams go."""
    callee = [token(root), token(namespace), "inst", token(app), token(instance)]
    return ".".join([*callee, token(stream), token(caller_namespace), token(caller)])


def frame(kind, head, body=b""):
    packed = msgpack.packb(head)
    return PREFIX.pack(VERSION, kind, len(packed)) + packed + body


def read_frame(data):
    """Gives kind, head, body. Raises ValueError for anything that is no frame of this version."""
    if len(data) < PREFIX.size:
        raise ValueError("shorter than the prefix")
    version, kind, length = PREFIX.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"version {version}")
    if length > MAX_HEAD or PREFIX.size + length > len(data):
        raise ValueError("the head does not fit")
    try:
        head = msgpack.unpackb(data[PREFIX.size : PREFIX.size + length])
    except Exception as error:
        raise ValueError("the head is not msgpack") from error
    if not isinstance(head, dict):
        raise ValueError("the head is no map")
    return kind, head, data[PREFIX.size + length :]


def pairs(flat):
    """A flat list of names and values as a dictionary with lower-case names."""
    return {flat[n].lower(): flat[n + 1] for n in range(0, len(flat or []), 2)}
