"""Calls weft.test.Calls of proxied_app.py with grpcio: `proxied_caller.py <scenario> <app id>`. Exits with 0 when
everything was as expected. `DAPR_GRPC_PORT` is the caller's sidecar."""

import json
import os
import sys
import threading
import time

import grpc

LIMIT = 30
CHANNEL = grpc.insecure_channel(
    "127.0.0.1:" + os.environ["DAPR_GRPC_PORT"],
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 256 * 1024)],
)
APP = sys.argv[2]
KINDS = {
    "Count": CHANNEL.unary_stream,
    "FailLater": CHANNEL.unary_stream,
    "Ticks": CHANNEL.unary_stream,
    "Total": CHANNEL.stream_unary,
    "Echo": CHANNEL.stream_stream,
}


def method(name):
    return KINDS.get(name, CHANNEL.unary_unary)("/weft.test.Calls/" + name)


def named(*more):
    return (("dapr-app-id", APP), *more)


def expect(found, wanted, what=""):
    if found != wanted:
        sys.exit(f"{what} {found!r}, not {wanted!r}")


def failure(run):
    try:
        run()
    except grpc.RpcError as error:
        return error
    return sys.exit("the call did not fail")


def unary():
    answer, call = method("Unary").with_call(b"hello \x00", metadata=named(), timeout=LIMIT)
    expect(answer, b"hello \x00")
    headers, trailers = dict(call.initial_metadata()), dict(call.trailing_metadata())
    expect((headers["x-head"], headers["x-head-bin"]), ("h", b"\x00\xff"))
    expect((trailers["x-tail"], trailers["x-tail-bin"]), ("t", b"\xff\x00"))


def metadata():
    """Values pass as they are, several under one name in their order."""
    sent = [("x-a", "1"), ("x-a", "two words"), ("x-bin", b"\x00\x01\xfe"), ("x-bin", b""), ("x-big", "v" * 60_000)]
    answer = method("Unary")(b"metadata", metadata=named(*sent), timeout=LIMIT)
    found = [tuple(pair) for pair in json.loads(answer)]
    wanted = [(key, value.hex() if isinstance(value, bytes) else value) for key, value in sent]
    expect([pair for pair in found if pair[0].startswith("x-")], wanted)
    names = {key for key, _ in found}
    expect("dapr-app-id" in names, False)


def streams():
    expect([int(m) for m in method("Count")(b"500", metadata=named(), timeout=LIMIT)], list(range(500)))
    expect(list(method("Count")(b"0", metadata=named(), timeout=LIMIT)), [])
    parts = [str(i).encode() for i in range(300)]
    expect(method("Total")(iter(parts), metadata=named(), timeout=LIMIT), b",".join(parts))
    expect(method("Total")(iter([]), metadata=named(), timeout=LIMIT), b"")


def conversation():
    """Each side answers the other at once: nothing waits for more to come."""
    turn = threading.Event()
    latest = []

    def questions():
        for i in range(200):
            turn.wait(LIMIT)
            turn.clear()
            yield str(i).encode()

    started = time.monotonic()
    turn.set()
    for answer in method("Echo")(questions(), metadata=named(), timeout=LIMIT):
        latest.append(int(answer))
        turn.set()
    expect(latest, list(range(200)))
    if time.monotonic() - started > 20:
        sys.exit("a conversation of 200 turns took more than 20 s")


def large():
    """Messages larger than a chunk, a credit and NATS' max_payload, both ways at once."""
    parts = [os.urandom(size) for size in (3_900_000, 1, 70_000, 0, 1_500_000)]
    expect(list(method("Echo")(iter(parts), metadata=named(), timeout=LIMIT)) == parts, True)


def statuses():
    error = failure(lambda: method("Fail")(b"5 not h\xc3\xa9re %", metadata=named(), timeout=LIMIT))
    expect((error.code(), error.details()), (grpc.StatusCode.NOT_FOUND, "not h\u00e9re %"))
    trailers = dict(error.trailing_metadata())
    expect((trailers["grpc-status-details-bin"], trailers["x-why"]), (b"\x08\x05details", "asked"))
    got = []
    error = failure(lambda: got.extend([m for m in method("FailLater")(b"8 too much", metadata=named(), timeout=LIMIT)]))
    expect((error.code(), error.details()), (grpc.StatusCode.RESOURCE_EXHAUSTED, "too much"))
    first = method("FailLater")(b"8 too much", metadata=named(), timeout=LIMIT)
    expect(next(first), b"first")
    # To its end: grpcio may hang when a program ends with a call that is open.
    error = failure(lambda: next(first))
    expect(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)


def deadlines():
    before = ended()
    # A call may be over before it has reached the app; then again, with more time.
    for seconds in (0.3, 3, 10):
        error = failure(lambda: method("Wait")(b"", metadata=named(), timeout=seconds))
        expect(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        if is_ended("Wait", before, 5):
            break
    left = float(method("Unary")(b"time", metadata=named(), timeout=LIMIT))
    # grpc rounds a timeout up before it sends it.
    if not LIMIT - 5 < left < LIMIT + 1:
        sys.exit(f"the app has {left} s of {LIMIT}")
    wait_for_ended("Wait", before)


def cancels():
    before = ended()
    call = method("Wait").future(b"", metadata=named(), timeout=LIMIT)
    ticks = method("Ticks")(b"10", metadata=named(), timeout=LIMIT)
    expect(next(ticks), b"." * 10)
    open_end = threading.Event()

    def questions():
        yield b"to be cancelled"
        open_end.wait(LIMIT)

    echo = method("Echo")(questions(), metadata=named(), timeout=LIMIT)
    expect(next(echo), b"to be cancelled")
    for each in (call, ticks, echo):
        each.cancel()
        expect(each.code(), grpc.StatusCode.CANCELLED)
    # Wait may have been given up before it reached the app; deadlines() shows that the app is told.
    for name in ("Ticks", "Echo"):
        wait_for_ended(name, before)
    open_end.set()


def ended():
    """Names of the calls that ended early, of all tests so far."""
    return json.loads(method("Ended")(b"", metadata=named(), timeout=LIMIT))


def is_ended(name, before, seconds):
    until = time.monotonic() + seconds
    while ended().count(name) == before.count(name):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def wait_for_ended(name, before):
    if not is_ended(name, before, LIMIT):
        sys.exit(f"the app was not told that {name} is over")


SCENARIOS = (unary, metadata, streams, conversation, large, statuses, deadlines, cancels)

if __name__ == "__main__":
    {run.__name__: run for run in SCENARIOS}[sys.argv[1]]()
    print(f"{sys.argv[1]}: as expected")
