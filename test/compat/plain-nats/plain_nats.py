"""
A program with only nats-py and msgpack that takes part in a Weft mesh:

  plain_nats.py vectors <folder> <README.md>            checks names and frames against the shared vectors
  plain_nats.py call <url> <form> <app> <path> [body]   calls an app; form: rpc (frames) or call (plain NATS)
  plain_nats.py serve <url> <form> <app>                is an app until it is ended; says "serving" first
  plain_nats.py publish <url> <component> <topic> <mode> <id> <data>   mode: structured, binary or plain
  plain_nats.py keyed <url> <component> <topic> <key> <data>...        publishes events with one key
  plain_nats.py later <url> <component> <topic> <id> <seconds> <data>...   publishes for later, the last one counts
  plain_nats.py receive <url> <component> <topic> <group> <count>      takes events out of a durable group
  plain_nats.py state <url> <component> <key part>...                  reads a state key
  plain_nats.py save <url> <component> <revision> <value> <key part>...   writes one, guarded by its revision
  plain_nats.py large <url> <component> <key part>...                  reads a state key whose value lies in parts
  plain_nats.py keys <url> <component> <key part>...                   lists the keys below a prefix
  plain_nats.py watch <url> <component> <count> <key part>...          tells changes below a prefix; says "watching" first
  plain_nats.py presence <url>                          lists who is alive

Each prints one JSON object a line.
"""

import asyncio
import hashlib
import json
import pathlib
import re
import sys
from datetime import datetime, timedelta, timezone

import nats
import protocol as weft
from nats.js.api import ConsumerConfig
from nats.js.errors import KeyNotFoundError

CALLER = "py"
#: A served call tells that it is alive from the fifth second on; silence for this long is the end of it.
SILENCE_S = 16


def tell(**facts):
    print(json.dumps(facts), flush=True)


def shown(body):
    return body.decode(errors="backslashreplace")


# Vectors


def check(wanted, got):
    assert wanted == got, f"wanted {wanted!r}, got {got!r}"


def vectors(folder, readme):
    count = 0
    subjects = json.loads(pathlib.Path(folder, "subjects.json").read_text())
    for it in subjects["tokens"]:
        check(it["token"], weft.token(it["text"]))
        check(it["text"], weft.text_of(it["token"]))
        count += 1
    for it in subjects["names"]:
        check(it["name"], weft.name(*it["parts"]))
        count += 1
    for it in subjects["keys"]:
        check(it["subject"], f"$KV.{it['bucket']}.{weft.key(*it['key'])}")
        count += 1
    for it in subjects["calls"]:
        target = {"namespace": it["namespace"], "caller_namespace": it["callerNamespace"], "root": it["root"]}
        check(it["subject"], weft.call_subject(it["form"], it["app"], it["callerApp"], **target))
        count += 1
    for it in subjects["instances"]:
        target = {"namespace": it["namespace"], "caller_namespace": it["callerNamespace"], "root": it["root"]}
        check(it["subject"], weft.stream_subject(it["app"], it["instance"], it["stream"], it["callerApp"], **target))
        count += 1
    for it in subjects["topics"]:
        check(it["subject"], weft.topic_subject(it["base"], it["topic"]))
        count += 1
    for it in subjects["keyed"]:
        check(it["subject"], weft.keyed_subject(it["base"], it["key"], it["topic"]))
        check(it["stored"].split(".")[2], str(weft.partition(it["key"])))
        count += 1
    for it in subjects["filters"]:
        check(it["subject"], weft.topic_filter(it["base"], it["topic"]))
        count += 1
    frames = json.loads(pathlib.Path(folder, "frames.json").read_text())
    for it in frames["frames"]:
        body = bytes.fromhex(it["bodyHex"])
        check((it["kind"], it["head"], body), weft.read_frame(bytes.fromhex(it["hex"])))
        check((it["kind"], it["head"], body), weft.read_frame(weft.frame(it["kind"], it["head"], body)))
        count += 1
    for it in frames["refused"]:
        try:
            weft.read_frame(bytes.fromhex(it["hex"]))
        except ValueError:
            count += 1
            continue
        raise AssertionError(f"{it['name']} must be refused")
    tell(vectors=count, example=readme_example(readme))


def readme_example(readme):
    """The byte example of the page: its bytes must be the frame that its words describe."""
    [block] = re.findall(r"```\n(01 01 .*?)```", pathlib.Path(readme).read_text(), re.S)
    digits = re.findall(r"^((?: *[0-9a-f]{2,})+)(?=\s{2,}|\n)", block, re.M)
    example = bytes.fromhex("".join(digits))
    headers = ["content-type", "app/json1"]
    head = {"verb": "POST", "path": "/price", "query": "item=tea", "headers": headers}
    check((weft.REQUEST, head, b"{}"), weft.read_frame(example))
    return len(example)


# Calls


async def call(client, form, app, path, body=""):
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    target, _, query = path.partition("?")
    verb = "POST" if body else "GET"
    subject = weft.call_subject(form, app, CALLER)
    if form == "rpc":
        head = {"verb": verb, "path": target, "query": query, "headers": ["x-from", "python"], "timeoutMs": 20_000}
        await client.publish(subject, weft.frame(weft.REQUEST, head, body.encode()), reply=inbox)
    elif form == "bad":
        await client.publish(weft.call_subject("rpc", app, CALLER), b"\x02\x01\x00\x00\x00\x01\x80", reply=inbox)
    else:
        headers = {"Weft-Path": path, "X-From": "python"}
        await client.publish(subject, body.encode(), reply=inbox, headers=headers)
    while True:
        answer = await answers.next_msg(timeout=SILENCE_S)
        headers = answer.headers or {}
        if headers.get("Status") == "503":
            return tell(error="no-responders")
        if form == "call":
            return tell_plain(headers, answer.data)
        kind, head, body = weft.read_frame(answer.data)
        if kind == weft.PROGRESS:
            tell(progress=True)
            continue
        if kind == weft.ERROR:
            return tell(error=head["code"], text=head["message"])
        headers = weft.pairs(head.get("headers"))
        return tell(status=head["status"], headers=headers, body=shown(body), grpc=head.get("grpc"))


def tell_plain(headers, body):
    special = {name: value for name, value in headers.items() if name.startswith("Weft-")}
    others = {name.lower(): value for name, value in headers.items() if name not in special}
    if "Weft-Error" in special:
        return tell(error=special["Weft-Error"], status=int(special["Weft-Status"]), text=shown(body))
    grpc = special.get("Weft-Grpc-Status")
    return tell(status=int(special.get("Weft-Status", "200")), headers=others, body=shown(body), grpc=grpc)


async def serve(client, form, app):
    """Answers with what it was asked; `/status/<n>` with that status, `/slow` only when it is cancelled."""
    cancelled = {}

    async def on_call(message):
        *_, namespace, caller = [weft.text_of(part) for part in message.subject.split(".")]
        by = f"{namespace}/{caller}"
        if form == "rpc":
            await on_frame(message, by)
        else:
            headers = message.headers or {}
            path = headers.get("Weft-Path", "/")
            facts = {"verb": headers.get("Weft-Verb"), "path": path, "by": by, "body": shown(message.data)}
            facts["x"] = next((value for name, value in headers.items() if name.lower() == "x-custom"), None)
            answered = {"Content-Type": "application/json", "X-Served-By": "python"}
            if status_of(path) != 200:
                answered["Weft-Status"] = str(status_of(path))
            await client.publish(message.reply, json.dumps(facts).encode(), headers=answered)

    async def on_frame(message, by):
        try:
            kind, head, body = weft.read_frame(message.data)
            check(weft.REQUEST, kind)
        except (ValueError, AssertionError) as error:
            return await client.publish(
                message.reply, weft.frame(weft.ERROR, {"code": "protocol", "message": str(error)})
            )
        if head["path"] == "/slow":
            cancelled[message.reply] = asyncio.Event()
            tell(begun=head["path"])
            return asyncio.create_task(work(message.reply))
        path = head["path"] + ("?" + head["query"] if head.get("query") else "")
        facts = {"verb": head["verb"], "path": path, "by": by, "body": shown(body)}
        facts["x"] = weft.pairs(head.get("headers")).get("x-custom")
        answer = {"status": status_of(path), "headers": ["content-type", "application/json", "x-served-by", "python"]}
        await client.publish(message.reply, weft.frame(weft.RESPONSE, answer, json.dumps(facts).encode()))

    async def work(reply):
        while not cancelled[reply].is_set():
            await client.publish(reply, weft.frame(weft.PROGRESS, {}))
            try:
                await asyncio.wait_for(cancelled[reply].wait(), 5)
            except asyncio.TimeoutError:
                pass
        tell(cancelled=True)

    async def on_cancel(message):
        kind, head, _ = weft.read_frame(message.data)
        if kind == weft.CANCEL and head["id"] in cancelled:
            cancelled[head["id"]].set()

    filtered = f"weft.default.{form}.{weft.token(app)}.*.*"
    await client.subscribe(filtered, queue=weft.token(app), cb=on_call)
    if form == "rpc":
        await client.subscribe(f"weft.default.cancel.{weft.token(app)}.*.*", cb=on_cancel)
    await client.flush()
    tell(serving=app)
    await asyncio.Event().wait()


def status_of(path):
    found = re.match(r"/status/(\d+)", path)
    return int(found[1]) if found else 200


# Events


async def publish(client, component, topic, mode, event_id, data):
    base = f"weft.default.topic.{weft.token(component)}"
    attributes = {"specversion": "1.0", "id": event_id, "type": "from.python", "source": "py"}
    headers = {"Nats-Msg-Id": event_id}
    if mode == "structured":
        event = {**attributes, "datacontenttype": "application/json", "data": json.loads(data)}
        payload = json.dumps(event)
        headers["Content-Type"] = "application/cloudevents+json"
    elif mode == "binary":
        payload = data
        headers |= {f"ce-{attribute}": value for attribute, value in attributes.items()}
        headers["Content-Type"] = "application/json"
    else:
        payload = data
    stored = await client.jetstream().publish(weft.topic_subject(base, topic), payload.encode(), headers=headers)
    tell(stream=stored.stream, duplicate=bool(stored.duplicate))


async def keyed(client, component, topic, key, *payloads):
    """Publishes with a key; tells under which subject NATS stored each."""
    base = f"weft.default.topic.{weft.token(component)}"
    for payload in payloads:
        stored = await client.jetstream().publish(weft.keyed_subject(base, key, topic), payload.encode())
        message = await client.jetstream().get_msg(stored.stream, stored.seq)
        tell(subject=message.subject)


async def later(client, component, topic, event_id, seconds, *payloads):
    """Publishes events of one id for later: each replaces the one before it."""
    base = f"weft.default.topic.{weft.token(component)}"
    for payload in payloads:
        due = datetime.now(timezone.utc) + timedelta(seconds=float(seconds))
        headers = {
            "Nats-Schedule": "@at " + due.isoformat(),
            "Nats-Schedule-Target": weft.topic_subject(base, topic),
            "Nats-TTL": "never",
        }
        await client.jetstream().publish(weft.timed_subject(base, event_id, topic), payload.encode(), headers=headers)
    tell(due=due.timestamp() * 1000)


async def receive(client, component, topic, group, count):
    base = f"weft.default.topic.{weft.token(component)}"
    stream = weft.name("weft", "topics", "default", component)
    durable = weft.name(group, topic)
    config = ConsumerConfig(durable_name=durable, filter_subject=weft.topic_filter(base, topic))
    subscription = await client.jetstream().pull_subscribe(
        weft.topic_filter(base, topic), durable=durable, stream=stream, config=config
    )
    left = int(count)
    while left > 0:
        for message in await subscription.fetch(left, timeout=10):
            kind = (message.headers or {}).get("Content-Type")
            tell(subject=message.subject, contentType=kind, event=json.loads(message.data))
            await message.ack_sync()
            left -= 1


# State and presence


async def state(client, component, *parts):
    bucket = await client.jetstream().key_value(weft.name("weft", "state", "default", component))
    try:
        entry = await bucket.get(weft.key(*parts))
    except KeyNotFoundError:
        return tell(absent=True)
    tell(value=shown(entry.value), revision=entry.revision)


async def save(client, component, revision, value, *parts):
    bucket = await client.jetstream().key_value(weft.name("weft", "state", "default", component))
    try:
        tell(revision=await bucket.update(weft.key(*parts), value.encode(), last=int(revision)))
    except nats.js.errors.KeyWrongLastSequenceError:
        tell(conflict=True)


async def large(client, component, *parts):
    js = client.jetstream()
    name = weft.name("weft", "state", "default", component)
    message = await js.get_last_msg("KV_" + name, f"$KV.{name}.{weft.key(*parts)}", direct=True)
    set_id, count, size = message.headers["Weft-Parts"].split(" ")
    bucket = await js.key_value(weft.name("weft", "state-parts", "default", component))
    found = [(await bucket.get(weft.key("p", set_id, str(n)))).value for n in range(1, int(count) + 1)]
    value = b"".join(found)
    check(int(size), len(value))
    tell(size=len(value), sha256=hashlib.sha256(value).hexdigest(), payload=shown(message.data or b""))


async def keys(client, component, *parts):
    bucket = await client.jetstream().key_value(weft.name("weft", "state", "default", component))
    below = weft.key(*parts) + "."
    found = [it for it in await bucket.keys() if it.startswith(below)]
    tell(keys=[[weft.text_of(part) for part in it.split(".")] for it in found])


async def watch(client, component, count, *parts):
    bucket = await client.jetstream().key_value(weft.name("weft", "state", "default", component))
    watcher = await bucket.watch(weft.key(*parts) + ".>", include_history=False)
    told = watching = 0
    while told < int(count):
        entry = await watcher.updates(timeout=60)
        if entry is None:
            # What was there before has been told.
            watching = 1
            tell(watching=True)
        elif watching:
            told += 1
            parts = [weft.text_of(part) for part in entry.key.split(".")]
            tell(key=parts, operation=entry.operation, value=shown(entry.value or b""))
    await watcher.stop()


async def presence(client):
    bucket = await client.jetstream().key_value(weft.name("weft", "presence"))
    for entry_key in await bucket.keys():
        namespace, app, instance = [weft.text_of(part) for part in entry_key.split(".")]
        entry = await bucket.get(entry_key)
        tell(namespace=namespace, app=app, instance=instance, **json.loads(entry.value))


async def main(command, url, *arguments):
    commands = (call, serve, publish, keyed, later, receive, state, save, large, keys, watch, presence)
    client = await nats.connect(url)
    try:
        await {it.__name__: it for it in commands}[command](client, *arguments)
    finally:
        await client.close()


if sys.argv[1] == "vectors":
    vectors(*sys.argv[2:])
else:
    asyncio.run(main(*sys.argv[1:]))
