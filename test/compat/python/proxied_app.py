"""A gRPC service that knows nothing of Dapr: every kind of call, over plain bytes. `APP_PORT` is where it listens.

What the tests ask of it afterwards stands in `Ended`: the calls that ended before they were done, and why.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures

import grpc

ended = []
lock = threading.Lock()


def remember(context, name):
    """Notes an early end. grpc calls back at every end, so `done` is set by calls that came to theirs."""
    state = {"done": False}

    def over():
        if not state["done"]:
            with lock:
                ended.append(name)

    context.add_callback(over)
    return state


def metadata_of(context):
    return [
        [key, value.hex() if isinstance(value, bytes) else value]
        for key, value in context.invocation_metadata()
    ]


def unary(request, context):
    context.send_initial_metadata((("x-head", "h"), ("x-head-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-tail", "t"), ("x-tail-bin", b"\xff\x00")))
    if request == b"metadata":
        return json.dumps(metadata_of(context)).encode()
    if request == b"time":
        return str(context.time_remaining()).encode()
    return request


def count(request, context):
    for i in range(int(request)):
        yield str(i).encode()


def total(requests, context):
    return b",".join(requests)


def echo(requests, context):
    state = remember(context, "Echo")
    over = threading.Event()
    context.add_callback(over.set)
    request = b""
    try:
        for request in requests:
            yield request
    except Exception:
        return
    # grpcio itself shows a cancel as the end of the requests now and then, and ends the call right behind it.
    state["done"] = request != b"to be cancelled" or not over.wait(30)


def fail(request, context):
    code, text = request.decode().split(" ", 1)
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05details"), ("x-why", "asked")))
    context.abort(list(grpc.StatusCode)[int(code)], text)


def fail_later(request, context):
    yield b"first"
    fail(request, context)


def wait(request, context):
    remember(context, "Wait")
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    return b""


def ticks(request, context):
    remember(context, "Ticks")
    size = int(request)
    while context.is_active():
        yield b"." * size
        time.sleep(0.02)


def list_ended(request, context):
    with lock:
        return json.dumps(ended).encode()


UNARY = {"Unary": unary, "Fail": fail, "Wait": wait, "Ended": list_ended}
SERVER = {"Count": count, "FailLater": fail_later, "Ticks": ticks}


def serve():
    handlers = {name: grpc.unary_unary_rpc_method_handler(run) for name, run in UNARY.items()}
    handlers.update({name: grpc.unary_stream_rpc_method_handler(run) for name, run in SERVER.items()})
    handlers["Total"] = grpc.stream_unary_rpc_method_handler(total)
    handlers["Echo"] = grpc.stream_stream_rpc_method_handler(echo)
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 256 * 1024)]
    server = grpc.server(futures.ThreadPoolExecutor(64), options=limits)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weft.test.Calls", handlers),))
    server.add_insecure_port("127.0.0.1:" + os.environ["APP_PORT"])
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(serve())
