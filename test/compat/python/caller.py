"""
A client on the unmodified Python SDK: `caller.py <scenario>` runs one scenario against the sidecar that the
environment names and ends with 0 when everything was as an SDK user expects; else with the failed assertion.
"""

import json
import sys
import time

import grpc
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError, DaprHttpError
from dapr.clients.grpc._crypto import DecryptOptions, EncryptOptions
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._response import TopicEventResponse, UnlockResponseStatus
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions

STORE = "statestore"
BUS = "bus"


def same(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def fails(task):
    """Runs what must fail and gives the error."""
    try:
        task()
    except (DaprGrpcError, DaprHttpError, grpc.RpcError) as error:
        return error
    raise AssertionError("this call should have failed")


def eventually(task, seconds=20):
    until = time.monotonic() + seconds
    while True:
        try:
            return task()
        except AssertionError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def wait_and_metadata(client):
    client.wait(20)
    client.set_metadata("colour", "blue")
    metadata = client.get_metadata()
    same(metadata.application_id, "caller")
    same(metadata.extended_metadata["colour"], "blue")
    components = {(it.name, it.type, it.version) for it in metadata.registered_components}
    assert (STORE, "state.nats", "v1") in components, components
    assert (BUS, "pubsub.nats", "v1") in components, components
    [store] = [it for it in metadata.registered_components if it.name == STORE]
    assert {"ETAG", "TRANSACTIONAL", "TTL"} <= set(store.capabilities), store.capabilities


def invoke(client):
    """Both apps, by the protocol that DAPR_API_METHOD_INVOCATION_PROTOCOL chooses."""
    for app in ("http-app", "grpc-app"):
        order = json.dumps({"quantity": 3})
        answer = client.invoke_method(app, "price", order, "application/json", http_verb="POST")
        same(json.loads(answer.text()), {"total": 15, "by": app, "caller": "caller"})
        assert answer.content_type.startswith("application/json"), answer.content_type


def invoke_between_apps(client):
    for asked, other in (("http-app", "grpc-app"), ("grpc-app", "http-app")):
        wanted = json.dumps({"app": other, "order": {"quantity": 2}})
        answer = client.invoke_method(asked, "ask", wanted, "application/json", http_verb="POST")
        same(json.loads(answer.text()), {"answer": {"total": 10, "by": other, "caller": asked}})


def invoke_http_details(client):
    for verb in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        answer = client.invoke_method(
            "http-app",
            "echo",
            "" if verb == "GET" else "some text",
            "text/plain",
            metadata=(("x-custom", "mine"),),
            http_verb=verb,
            http_querystring=(("a", "1"), ("b", "two words")),
        )
        told = json.loads(answer.text())
        same((told["verb"], told["x"]), (verb, "mine"))
        same(told["query"].replace("%20", "+"), "a=1&b=two+words")
        same(told["body"], "" if verb == "GET" else "some text")
        headers = {name.lower(): value for name, value in dict(answer.headers).items()}
        same(headers["x-answer"] if isinstance(headers["x-answer"], str) else headers["x-answer"][0], "42")


def invoke_failures_http(client):
    refused = fails(lambda: client.invoke_method("http-app", "refuse", "{}", http_verb="POST"))
    same(refused.status_code, 409)
    same(json.loads(refused.raw_response_bytes), {"why": "this app refuses"})
    unknown = fails(lambda: client.invoke_method("nobody", "price", "{}", http_verb="POST"))
    same((unknown.status_code, unknown.error_code), (500, "ERR_DIRECT_INVOKE"))
    assert "failed to invoke, id: nobody" in unknown.message, unknown.message
    missing = fails(lambda: client.invoke_method("grpc-app", "no-such-method", "{}", http_verb="POST"))
    same(missing.status_code, 501)


def invoke_failures_grpc(client):
    refused = fails(lambda: client.invoke_method("http-app", "refuse", "{}", http_verb="POST"))
    same(refused.code(), grpc.StatusCode.ALREADY_EXISTS)
    thrown = fails(lambda: client.invoke_method("grpc-app", "refuse", "{}", http_verb="POST"))
    same(thrown.code(), grpc.StatusCode.UNKNOWN)
    assert "this app refuses" in thrown.details(), thrown.details()
    missing = fails(lambda: client.invoke_method("grpc-app", "no-such-method", "{}", http_verb="POST"))
    same(missing.code(), grpc.StatusCode.UNIMPLEMENTED)
    unknown = fails(lambda: client.invoke_method("nobody", "price", "{}", http_verb="POST"))
    same(unknown.code(), grpc.StatusCode.INTERNAL)
    assert "failed to invoke, id: nobody" in unknown.details(), unknown.details()


def seen_by(client, app, handler, count, topic=None):
    def look():
        listed = json.loads(client.invoke_method(app, "seen", http_verb="GET").text())
        found = [it for it in listed if it["handler"] == handler]
        if topic is not None:
            found = [it for it in found if it["event"]["topic"] == topic]
        assert len(found) >= count, f"{app} saw {len(found)} of {count} events at {handler}"
        return found

    return eventually(look)


def publish(client):
    client.publish_event(BUS, "orders.created", json.dumps({"id": 1}), data_content_type="application/json")
    client.publish_event(BUS, "orders.created", "some text", data_content_type="text/plain")
    client.publish_event(BUS, "orders.created", b"\x00\xff", data_content_type="application/octet-stream")
    client.publish_event(
        BUS,
        "orders.created",
        json.dumps({"id": 4}),
        publish_metadata={"cloudevent.type": "order.v1", "cloudevent.id": "my-id"},
        data_content_type="application/json",
    )
    over_http = [it["event"] for it in seen_by(client, "http-app", "orders", 4)]
    same(len(over_http), 4)
    by_type = {it["datacontenttype"]: it for it in over_http if it["id"] != "my-id"}
    same(by_type["application/json"]["data"], {"id": 1})
    same(by_type["text/plain"]["data"], "some text")
    same(by_type["application/octet-stream"]["data_base64"], "AP8=")
    [own] = [it for it in over_http if it["id"] == "my-id"]
    same((own["type"], own["source"], own["topic"], own["pubsubname"]), ("order.v1", "caller", "orders.created", BUS))
    same((own["specversion"], own["data"]), ("1.0", {"id": 4}))


def publish_to_grpc(client):
    """Runs after `publish`: the other app has a subscription of its own, so it saw the same events."""
    over_grpc = seen_by(client, "grpc-app", "orders.created", 4)
    [own] = [it for it in over_grpc if it["id"] == "my-id"]
    same((own["type"], own["source"], own["topic"]), ("order.v1", "caller", "orders.created"))
    same((own["contentType"], json.loads(own["data"])), ("application/json", {"id": 4}))
    assert any(it["data"] == "\x00\\xff" and it["contentType"] == "application/octet-stream" for it in over_grpc)
    assert any(it["data"] == "some text" and it["contentType"] == "text/plain" for it in over_grpc), over_grpc


def publish_answers(client):
    client.publish_event(BUS, "flaky", json.dumps({"n": 1}), data_content_type="application/json")
    client.publish_event(BUS, "unwanted", json.dumps({"n": 2}), data_content_type="application/json")
    for app in ("http-app", "grpc-app"):
        twice = seen_by(client, app, "flaky", 2)
        same(len(twice), 2)
        ids = {it["event"]["id"] if "event" in it else it["id"] for it in twice}
        same(len(ids), 1)
    same(len(seen_by(client, "grpc-app", "unwanted", 1)), 1)
    unknown = fails(lambda: client.publish_event("no-bus", "t", "x"))
    same(unknown.code(), grpc.StatusCode.INVALID_ARGUMENT)
    assert "pubsub no-bus is not found" in unknown.details(), unknown.details()


def publish_bulk(client):
    before = len(seen_by(client, "grpc-app", "orders.created", 0))
    sent = client.publish_events(BUS, "orders.created", ["one", "two", "three"], data_content_type="text/plain")
    same(len(sent.failed_entries), 0)
    found = seen_by(client, "grpc-app", "orders.created", before + 3)[before:]
    same({it["data"] for it in found}, {"one", "two", "three"})


def state(client):
    client.save_state(STORE, "text", "some text")
    client.save_state(STORE, "bytes", b"\x00\x01\xff")
    client.save_state(STORE, "json", json.dumps({"a": ["ü", "<b>"]}))
    same(client.get_state(STORE, "text").data, b"some text")
    same(client.get_state(STORE, "bytes").data, b"\x00\x01\xff")
    same(json.loads(client.get_state(STORE, "json").data), {"a": ["ü", "<b>"]})
    absent = client.get_state(STORE, "absent")
    same((absent.data, absent.etag), (b"", ""))
    client.delete_state(STORE, "text")
    same(client.get_state(STORE, "text").data, b"")
    client.delete_state(STORE, "absent")
    unknown = fails(lambda: client.save_state("no-store", "k", "v"))
    same(unknown.code(), grpc.StatusCode.INVALID_ARGUMENT)
    assert "state store no-store is not found" in unknown.details(), unknown.details()


def state_bulk(client):
    client.save_bulk_state(STORE, [StateItem(key=f"bulk-{n}", value=f"value {n}") for n in range(20)])
    keys = [f"bulk-{n}" for n in range(19, -1, -1)] + ["bulk-absent"]
    items = client.get_bulk_state(STORE, keys, parallelism=4).items
    same([it.key for it in items], keys)
    same([it.text() for it in items[:20]], [f"value {n}" for n in range(19, -1, -1)])
    same((items[20].data, items[20].etag, items[20].error), (b"", "", ""))
    assert all(it.etag != "" for it in items[:20])


def state_etag(client):
    client.save_state(STORE, "etag", "one")
    first = client.get_state(STORE, "etag").etag
    client.save_state(STORE, "etag", "two", etag=first)
    refused = fails(lambda: client.save_state(STORE, "etag", "three", etag=first))
    same(refused.code(), grpc.StatusCode.ABORTED)
    same(client.get_state(STORE, "etag").data, b"two")
    refused = fails(lambda: client.delete_state(STORE, "etag", etag=first))
    same(refused.code(), grpc.StatusCode.ABORTED)
    client.delete_state(STORE, "etag", etag=client.get_state(STORE, "etag").etag)
    same(client.get_state(STORE, "etag").data, b"")
    first_write = StateOptions(concurrency=Concurrency.first_write, consistency=Consistency.strong)
    client.save_state(STORE, "first", "one", options=first_write)
    refused = fails(lambda: client.save_state(STORE, "first", "two", options=first_write))
    same(refused.code(), grpc.StatusCode.ABORTED)
    same(client.get_state(STORE, "first").data, b"one")


def state_ttl(client):
    def save_and_read():
        client.save_state(STORE, "short", "here", state_metadata={"ttlInSeconds": "1"})
        same(client.get_state(STORE, "short").data, b"here")

    # Again if its time is over before it is read.
    eventually(save_and_read)
    eventually(lambda: same(client.get_state(STORE, "short").data, b""))


def state_transaction(client):
    client.save_state(STORE, "gone", "x")
    upsert, delete = TransactionOperationType.upsert, TransactionOperationType.delete
    client.execute_state_transaction(
        STORE,
        [
            TransactionalStateOperation(operation_type=upsert, key="came", data="new"),
            TransactionalStateOperation(operation_type=upsert, key="also", data=b"newer"),
            TransactionalStateOperation(operation_type=delete, key="gone"),
        ],
    )
    same(client.get_state(STORE, "came").data, b"new")
    same(client.get_state(STORE, "also").data, b"newer")
    same(client.get_state(STORE, "gone").data, b"")
    fails(
        lambda: client.execute_state_transaction(
            STORE,
            [
                TransactionalStateOperation(operation_type=upsert, key="came", data="never"),
                TransactionalStateOperation(operation_type=upsert, key="also", data="never", etag="1"),
            ],
        )
    )
    same(client.get_state(STORE, "came").data, b"new")


def declared(client):
    """A subscription of a resource file; both apps serve its route."""
    client.publish_event(BUS, "declared", json.dumps({"n": 1}), data_content_type="application/json")
    [seen] = seen_by(client, "http-app", "orders", 1, "declared")
    same((seen["event"]["topic"], seen["event"]["data"]), ("declared", {"n": 1}))


def bulk_subscribe(client):
    client.publish_events(BUS, "orders.bulk", ["one", "two", "three"], data_content_type="text/plain")
    found = seen_by(client, "grpc-app", "bulk", 3)
    same({it["data"] for it in found}, {"one", "two", "three"})


def stream(client):
    """The loop over a subscription, as the SDK's users write it."""
    subscription = client.subscribe(BUS, "py.streamed")
    for n in range(3):
        client.publish_event(BUS, "py.streamed", json.dumps({"n": n}), data_content_type="application/json")
    taken, retried = [], False
    for message in subscription:
        if message is None:
            continue
        same((message.topic(), message.pubsub_name(), message.source()), ("py.streamed", BUS, "caller"))
        if message.data()["n"] == 1 and not retried:
            retried = True
            subscription.respond_retry(message)
            continue
        taken.append(message.data()["n"])
        subscription.respond_success(message)
        if len(taken) == 3:
            break
    subscription.close()
    same(sorted(taken), [0, 1, 2])


def stream_handler(client):
    taken = []

    def handle(message):
        taken.append(message.data())
        return TopicEventResponse("success")

    close = client.subscribe_with_handler(BUS, "py.handled", handle, dead_letter_topic="py.dead")
    client.publish_event(BUS, "py.handled", "ping", data_content_type="text/plain")
    eventually(lambda: same(taken, ["ping"]))
    close()


def lock(client):
    with client.try_lock("locks", "py", "one", 60) as first:
        assert first.success, "the lock was free"
        assert not client.try_lock("locks", "py", "two", 60).success, "two got what one holds"
        same(client.unlock("locks", "py", "two").status, UnlockResponseStatus.lock_belongs_to_others)
    same(client.unlock("locks", "py", "one").status, UnlockResponseStatus.lock_does_not_exist)


def configuration(client):
    items = client.get_configuration("settings", ["fixed", "absent"]).items
    same({key: item.value for key, item in items.items()}, {"fixed": "blue"})
    values = set()

    def handle(_, response):
        values.update(item.value for key, item in response.items.items() if key == "changing")

    subscription = client.subscribe_configuration("settings", ["changing"], handle)

    def changed():
        assert len(values) >= 2, f"values of a changing item: {values}"

    eventually(changed)
    assert client.unsubscribe_configuration("settings", subscription)


def crypto(client):
    plain = b"secret " * 30_000
    options = EncryptOptions(component_name="vault", key_name="key", key_wrap_algorithm="A256KW")
    document = client.encrypt(plain, options).read()
    assert b"secret" not in document
    same(client.decrypt(document, DecryptOptions(component_name="vault")).read(), plain)


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        wait_and_metadata,
        invoke,
        invoke_between_apps,
        invoke_http_details,
        invoke_failures_http,
        invoke_failures_grpc,
        publish,
        publish_to_grpc,
        publish_answers,
        publish_bulk,
        state,
        state_bulk,
        state_etag,
        state_ttl,
        state_transaction,
        declared,
        bulk_subscribe,
        stream,
        stream_handler,
        lock,
        configuration,
        crypto,
    )
}

with DaprClient() as dapr:
    SCENARIOS[sys.argv[1]](dapr)
    print(f"{sys.argv[1]}: as expected")
