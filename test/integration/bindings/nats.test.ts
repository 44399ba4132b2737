// bindings.nats through real sidecars: core subjects with questions and answers, JetStream at least once.
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { binding, invoke } from "./resources.ts";

/** Answers on a subject with what it was asked and the header `who`. */
function serve(client: NatsConnection, subject: string): void {
  client.subscribe(subject, {
    callback: (_, message) => {
      const told = headers();
      told.set("Answered-By", message.headers?.get("who") ?? "");
      message.respond(`<${message.string()}>`, { headers: told });
    },
  });
}

test("create publishes to a subject with headers, request waits for an answer", async () => {
  await using nats = await startNats();
  const client = await nats.connect();
  serve(client, "shop.price");
  const sold = client.subscribe("shop.sold", { max: 1 });
  await client.flush();
  await using sidecar = await startSidecar({
    appId: "seller",
    nats,
    resources: { "n.yaml": binding("out", "bindings.nats", { subject: "shop.sold" }) },
  });
  expect((await invoke(sidecar, "out", "create", { n: 1 }, { "header.Who": "seller" })).status).toBe(204);
  for await (const message of sold) {
    expect(message.string()).toBe('{"n":1}');
    expect(message.headers!.get("Who")).toBe("seller");
  }
  const asked = await invoke(sidecar, "out", "request", 7, { subject: "shop.price", "header.who": "me" });
  expect([asked.status, asked.text, asked.headers["metadata.answered-by"]]).toEqual([200, "<7>", "me"]);

  const cases: readonly (readonly [string, Record<string, string>, string])[] = [
    ["request", { subject: "shop.nobody" }, "nats: nobody answers on subject shop.nobody"],
    ["create", { subject: "a b" }, "is no subject"],
    ["create", { subject: "shop.*" }, "has a wildcard"],
    ["create", { subject: "weft.default.rpc.x" }, "may be a subject of the mesh or the server"],
    ["create", { subject: "$JS.API.STREAM.DELETE.x" }, "may be a subject of the mesh or the server"],
    ["create", { subject: "x", jetstream: "true" }, "nats: no response from stream"],
    ["create", { "header.a": "b\nc" }, "line breaks"],
    ["request", { timeout: "soon" }, "is no time above 0"],
    // Longer than what a timer holds.
    ["request", { subject: "shop.price", timeout: "1000h" }, "is no time above 0 and up to 24h"],
    ["create", { subject: "shop.price", jetstream: "true" }, "no stream stores shop.price"],
    // NATS would end the connection, which all calls of the sidecar share.
    ["create", { subject: `shop.${"a".repeat(6_000)}` }, "has 6005 bytes; NATS takes at most 2800 here"],
  ];
  for (const [operation, given, text] of cases)
    expect((await invoke(sidecar, "out", operation, 1, given)).text).toContain(text);
  const big = await invoke(sidecar, "out", "create", "a".repeat(1_100_000));
  expect(big.text).toContain("is above max_payload of 1048576; raise max_payload");
  client.subscribe("shop.silent", { callback: () => {} });
  await client.flush();
  const silent = await invoke(sidecar, "out", "request", 1, { subject: "shop.silent", timeout: "100ms" });
  expect(silent.text).toContain("no answer from shop.silent within 100 ms");
});

test("instances of an app share a subject, and the app's answer goes to who asked", async () => {
  await using nats = await startNats();
  const client = await nats.connect();
  const asked: string[] = [];
  await using app = await startApp({
    routes: {
      "POST /price": (request) => {
        asked.push(request.body.toString());
        expect(request.headers["subject"]).toBe("shop.price.tea");
        expect(request.headers["who"]).toBe("me");
        return asked.length === 3 ? { status: 500 } : { body: { price: 4 } };
      },
    },
  });
  const resources = {
    "n.yaml": binding("price", "bindings.nats", { subscribeSubject: "shop.price.*", direction: "input" }),
  };
  await using one = await startSidecar({ appId: "pricing", appPort: app.port, nats, resources });
  await using two = await startSidecar({ appId: "pricing", appPort: app.port, nats, resources });
  for (const sidecar of [one, two]) await sidecar.logged(/binding price delivers to the app/);
  const told = headers();
  told.set("who", "me");
  const ask = (text: string): ReturnType<NatsConnection["request"]> =>
    client.request("shop.price.tea", text, { headers: told, timeout: 10_000 });
  for (const n of [1, 2]) expect((await ask(`question ${n}`)).json()).toEqual({ price: 4 });
  const failed = await ask("question 3");
  expect(failed.headers!.get("Nats-Service-Error-Code")).toBe("500");
  expect(asked).toEqual(["question 1", "question 2", "question 3"]);
});

test("with JetStream a message counts when it is stored, and comes until the app has handled it", async () => {
  await using nats = await startNats();
  const manager = await jetstreamManager(await nats.connect());
  await manager.streams.add({ name: "SHOP", subjects: ["shop.>"] });
  await using app = await startApp();
  const handled: string[] = [];
  app.on("POST /loop", (request) => {
    const text = request.body.toString();
    if (text === '"bad"' && request.headers["deliveries"] !== "3") return { status: 500 };
    handled.push(`${text} ${String(request.headers["sequence"])}`);
    return {};
  });
  const loop = { subject: "shop.sold", subscribeSubject: "shop.sold", jetstream: "true", backOff: "20ms" };
  await using sidecar = await startSidecar({
    appId: "looper",
    appPort: app.port,
    nats,
    resources: { "n.yaml": binding("loop", "bindings.nats", { ...loop, direction: "input, output" }) },
  });
  await sidecar.logged(/binding loop delivers to the app/);
  const first = await invoke(sidecar, "loop", "create", "good", { messageId: "1" });
  expect(first.status).toBe(200);
  expect([first.headers["metadata.stream"], first.headers["metadata.sequence"]]).toEqual(["SHOP", "1"]);
  const again = await invoke(sidecar, "loop", "create", "good", { messageId: "1" });
  expect(again.headers["metadata.duplicate"]).toBe("true");
  await invoke(sidecar, "loop", "create", "bad");
  await eventually(() => expect(handled.toSorted()).toEqual(['"bad" 2', '"good" 1']));

  // What was sent while the sidecar was away waits in the stream.
  await sidecar.kill("SIGKILL");
  // What the server hands to a connection whose end it has not seen comes again after ackWait only.
  await eventually(async () => (await manager.consumers.info("SHOP", "looper-loop")).num_waiting === 0);
  await (await nats.connect()).request("shop.sold", '"later"', { timeout: 5_000 });
  await sidecar.restart();
  await eventually(() => expect(handled).toContain('"later" 3'), { timeoutMs: 20_000 });
});

test("a server of its own is reached by natsURL, with all its subjects", async () => {
  await using nats = await startNats();
  await using other = await startNats();
  const client = await other.connect();
  serve(client, "weft.price");
  await client.flush();
  await using sidecar = await startSidecar({
    appId: "seller",
    nats,
    resources: { "n.yaml": binding("out", "bindings.nats", { natsURL: other.url }) },
  });
  expect((await invoke(sidecar, "out", "request", 1, { subject: "weft.price" })).text).toBe("<1>");
  expect((await invoke(sidecar, "out", "create", 1)).text).toContain("request metadata subject is required");
});

test.each([
  ["timeout", "-1s", "use a time above 0 and up to 24h"],
  ["timeout", "9000h", "use a time above 0 and up to 24h"],
  ["ackWait", "0s", "use 1s or more"],
  ["backOff", "1s,-5s", "is no list of durations"],
  ["subscribeSubject", "a".repeat(5_000), "has 5000 bytes; NATS takes at most 2800 here"],
])("a wrong %s is refused at the start", async (field, value, text) => {
  await using nats = await startNats();
  const resources = { "n.yaml": binding("out", "bindings.nats", { subject: "a", [field]: value }) };
  await expect(startSidecar({ appId: "wrong", nats, resources })).rejects.toThrow(text);
});

test("the metadata API tells what a binding is used for", async () => {
  await using nats = await startNats();
  const subjects = { subject: "a", subscribeSubject: "a" };
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "1.yaml": binding("both", "bindings.nats", subjects),
      "2.yaml": binding("in", "bindings.nats", { ...subjects, direction: "input" }),
      "3.yaml": binding("out", "bindings.nats", { ...subjects, Direction: " Output " }),
      "4.yaml": binding("said", "bindings.nats", { ...subjects, direction: "output, input" }),
    },
  });
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{
    components: { name: string; capabilities: string[] }[];
  }>();
  expect(components).toMatchObject([
    { name: "both", capabilities: ["INPUT_BINDING", "OUTPUT_BINDING"] },
    { name: "in", capabilities: ["INPUT_BINDING"] },
    { name: "out", capabilities: ["OUTPUT_BINDING"] },
    { name: "said", capabilities: ["INPUT_BINDING", "OUTPUT_BINDING"] },
  ]);
});
