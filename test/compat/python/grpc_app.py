"""A user's app on the unmodified Python SDK over gRPC (dapr.ext.grpc): answers, asks another app, receives events."""

import json
import os

from cloudevents.sdk.event import v1
from dapr.clients import DaprClient
from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse, Rule

app = App()
me = os.environ["APP_ID"]
seen = []


@app.method("price")
def price(request: InvokeMethodRequest) -> InvokeMethodResponse:
    order = json.loads(request.text())
    caller = "".join(request.metadata.get("dapr-caller-app-id", []))
    answer = {"total": order["quantity"] * 5, "by": me, "caller": caller}
    return InvokeMethodResponse(json.dumps(answer), "application/json")


@app.method("refuse")
def refuse(request: InvokeMethodRequest) -> InvokeMethodResponse:
    raise ValueError("this app refuses")


@app.method("ask")
def ask(request: InvokeMethodRequest) -> bytes:
    wanted = json.loads(request.text())
    with DaprClient() as client:
        answer = client.invoke_method(
            wanted["app"], "price", json.dumps(wanted["order"]), "application/json", http_verb="POST"
        )
    return json.dumps({"answer": json.loads(answer.text())}).encode()


@app.method("seen")
def tell(request: InvokeMethodRequest) -> bytes:
    return json.dumps(seen).encode()


def remember(handler: str, event: v1.Event) -> None:
    data = event.Data()
    seen.append(
        {
            "handler": handler,
            "id": event.EventID(),
            "source": event.Source(),
            "type": event.EventType(),
            "contentType": event.ContentType(),
            "topic": event.Subject(),
            "data": data.decode(errors="backslashreplace") if isinstance(data, bytes) else data,
        }
    )


@app.subscribe(pubsub_name="bus", topic="orders.created")
def on_order(event: v1.Event) -> None:
    remember("orders.created", event)


@app.subscribe(pubsub_name="bus", topic="flaky")
def on_flaky(event: v1.Event) -> TopicEventResponse:
    first = not any(it["handler"] == "flaky" for it in seen)
    remember("flaky", event)
    return TopicEventResponse("retry" if first else "success")


@app.subscribe(pubsub_name="bus", topic="unwanted")
def on_unwanted(event: v1.Event) -> TopicEventResponse:
    remember("unwanted", event)
    return TopicEventResponse("drop")


# The SDK names the path of a rule after its function. The subscription that asks for many at once is a resource file.
@app.subscribe(pubsub_name="bus", topic="unused", rule=Rule("false", 1), disable_topic_validation=True)
def on_bulk(event: v1.Event) -> None:
    remember("bulk", event)


app.run(int(os.environ["APP_PORT"]), "127.0.0.1")
