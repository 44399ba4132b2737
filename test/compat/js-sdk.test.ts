// The unmodified JavaScript SDK, over HTTP and over gRPC: two apps on it, each a process beside its own sidecar, and
// a client on it. The two apps speak different protocols, so the calls between them cross protocols as well.
import {
  CommunicationProtocolEnum,
  DaprClient,
  HttpMethod,
  StateConcurrencyEnum,
  StateConsistencyEnum,
} from "@dapr/dapr";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startNats } from "../kit/index.ts";
import { startBlocks } from "./blocks.ts";
import { startSdkApp } from "./sdk-app.ts";
import type { Protocol, SdkApp } from "./sdk-app.ts";

type Seen = { readonly handler: string; readonly data: unknown };

describe.each<Protocol>(["http", "grpc"])("the JavaScript SDK over %s", (protocol) => {
  const other = protocol === "http" ? "grpc" : "http";
  const stack = new AsyncDisposableStack();
  let shop: SdkApp;
  let till: SdkApp;
  let client: DaprClient;

  beforeAll(async () => {
    const nats = stack.use(await startNats());
    const program = "test/compat/js/app.ts";
    shop = stack.use(await startSdkApp({ appId: "shop", nats, program, protocol }));
    const { resources } = stack.use(await startBlocks(nats));
    till = stack.use(await startSdkApp({ appId: "till", nats, program, protocol: other, resources }));
    const { httpPort, grpcPort } = till.sidecar;
    client = new DaprClient({
      daprHost: "127.0.0.1",
      daprPort: String(protocol === "http" ? httpPort : grpcPort),
      communicationProtocol:
        protocol === "http" ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC,
    });
    stack.defer(() => client.stop());
    await client.start();
  });
  afterAll(() => stack.disposeAsync());

  /** Asks the shop, through two sidecars, what its handler has been given. */
  async function seenBy(handler: string, count: number): Promise<unknown[]> {
    return eventually(
      async () => {
        const answer = (await client.invoker.invoke("shop", "seen", HttpMethod.GET)) as { seen: Seen[] };
        const found = answer.seen.filter((it) => it.handler === handler);
        if (found.length < count) throw new Error(`"${handler}" saw ${found.length} of ${count} events`);
        return found.map((it) => it.data);
      },
      { timeoutMs: 20_000, everyMs: 100 },
    );
  }

  test("its server sees its sidecar come up", async () => {
    await eventually(() => shop.program.logs().includes("the app and its SDK are up"));
    await eventually(() => till.program.logs().includes("the app and its SDK are up"));
  });

  test("health and metadata", async () => {
    expect(await client.health.isHealthy()).toBe(true);
    expect(await client.metadata.set("colour", "blue")).toBe(true);
    const metadata = await client.metadata.get();
    expect(metadata.id).toBe("till");
    expect(metadata.extended).toMatchObject({ colour: "blue" });
    const components = metadata.components.map((it) => [it.name, it.type, it.version]);
    expect(components).toContainEqual(["statestore", "state.nats", "v1"]);
    expect(components).toContainEqual(["bus", "pubsub.nats", "v1"]);
    const store = metadata.components.find((it) => it.name === "statestore");
    expect(store?.capabilities).toEqual(expect.arrayContaining(["ETAG", "TRANSACTIONAL", "TTL"]));
  });

  describe("invocation", () => {
    test("another app answers with JSON", async () => {
      const answer = await client.invoker.invoke("shop", "price", HttpMethod.POST, { quantity: 3 });
      expect(answer).toEqual({ total: 15, by: "shop" });
    });

    test("the apps ask each other, across protocols", async () => {
      const order = { quantity: 2 };
      const fromShop = await client.invoker.invoke("shop", "ask", HttpMethod.POST, { app: "till", order });
      expect(fromShop).toEqual({ answer: { total: 10, by: "till" } });
      const fromTill = await client.invoker.invoke("till", "ask", HttpMethod.POST, { app: "shop", order });
      expect(fromTill).toEqual({ answer: { total: 10, by: "shop" } });
    });

    test("an unknown app is an error that names it", async () => {
      const call = client.invoker.invoke("nobody", "price", HttpMethod.POST, { quantity: 1 });
      await expect(call).rejects.toThrow(/failed to invoke, id: nobody/);
    });
  });

  describe("pub/sub", () => {
    beforeAll(() => shop.sidecar.subscribed("unwanted"));

    test("objects, text and whole CloudEvents arrive as they were published", async () => {
      const event = { specversion: "1.0", type: "order", source: "test", id: "e-1", data: { id: 3 } };
      expect(await client.pubsub.publish("bus", "orders.created", { id: 1, name: "ä<b>" })).toEqual({});
      expect(await client.pubsub.publish("bus", "orders.created", "only text")).toEqual({});
      expect(await client.pubsub.publish("bus", "orders.created", event)).toEqual({});
      const seen = await seenBy("default route", 3);
      expect(seen).toHaveLength(3);
      expect(seen).toEqual(expect.arrayContaining([{ id: 1, name: "ä<b>" }, "only text", { id: 3 }]));
    });

    test("a route by name, and routes with a default", async () => {
      await client.pubsub.publish("bus", "parcels", { parcel: 1 });
      await client.pubsub.publish("bus", "refunds", { refund: 1 });
      expect(await seenBy("named route", 1)).toEqual([{ parcel: 1 }]);
      expect(await seenBy("routes.default", 1)).toEqual([{ refund: 1 }]);
    });

    test("RETRY brings the event again, DROP does not", async () => {
      await client.pubsub.publish("bus", "unwanted", { n: 1 });
      await client.pubsub.publish("bus", "flaky", { n: 2 });
      expect(await seenBy("flaky", 2)).toEqual([{ n: 2 }, { n: 2 }]);
      expect(await seenBy("unwanted", 1)).toEqual([{ n: 1 }]);
    });

    test("many at once", async () => {
      const before = (await seenBy("default route", 0)).length;
      const sent = await client.pubsub.publishBulk("bus", "orders.created", [{ n: 1 }, { n: 2 }, "three"]);
      expect(sent.failedMessages).toEqual([]);
      const seen = await seenBy("default route", before + 3);
      expect(seen.slice(before)).toEqual(expect.arrayContaining([{ n: 1 }, { n: 2 }, "three"]));
    });

    test("a subscription to many at once", async () => {
      await client.pubsub.publishBulk("bus", "crates", [{ n: 1 }, { n: 2 }, { n: 3 }]);
      const seen = await seenBy("bulk", 3);
      expect(seen).toHaveLength(3);
      expect(seen).toEqual(expect.arrayContaining([{ n: 1 }, { n: 2 }, { n: 3 }]));
    });

    test("an unknown component is an error that names it", async () => {
      const sent = client.pubsub.publish("no-bus", "orders.created", { id: 1 });
      // Over HTTP this SDK returns what it throws over gRPC.
      const { error } = await sent.catch((thrown: unknown) => thrown as { error?: Error });
      expect(String(error)).toMatch(/pubsub no-bus is not found/);
    });
  });

  describe("state", () => {
    const store = "statestore";
    const failure = async (saved: Promise<{ error?: Error }>): Promise<string> =>
      String((await saved.catch((thrown: unknown) => ({ error: thrown }))).error ?? "");
    const etagOf = async (key: string): Promise<string> => {
      const items = (await client.state.getBulk(store, [key])) as { etag?: string }[];
      return items[0]?.etag ?? "";
    };

    test("save, get, get many, delete", async () => {
      const saved = await client.state.save(store, [
        { key: "object", value: { a: 1, b: ["ü"] } },
        { key: "text", value: "some text" },
        { key: "number", value: 7 },
      ]);
      expect(saved).toEqual({});
      expect(await client.state.get(store, "object")).toEqual({ a: 1, b: ["ü"] });
      expect(await client.state.get(store, "text")).toBe("some text");
      expect(await client.state.get(store, "number")).toBe(7);
      expect(await client.state.get(store, "absent")).toBe("");
      const many = (await client.state.getBulk(store, ["number", "absent", "object"])) as Record<
        string,
        unknown
      >[];
      expect(many.map((it) => it["key"])).toEqual(["number", "absent", "object"]);
      expect(many[0]?.["data"]).toBe(7);
      expect(many[1]?.["data"] ?? "").toBe("");
      expect(many[2]?.["data"]).toEqual({ a: 1, b: ["ü"] });
      expect(await client.state.delete(store, "object")).toEqual({});
      expect(await client.state.get(store, "object")).toBe("");
    });

    test("an ETag lets exactly the holder of the current value write", async () => {
      await client.state.save(store, [{ key: "etag", value: "one" }]);
      const first = await etagOf("etag");
      expect(await client.state.save(store, [{ key: "etag", value: "two", etag: first }])).toEqual({});
      const refused = await failure(client.state.save(store, [{ key: "etag", value: "three", etag: first }]));
      expect(refused).toMatch(/possible etag mismatch/);
      expect(await client.state.get(store, "etag")).toBe("two");
      expect(await failure(client.state.delete(store, "etag", { etag: first }))).toMatch(
        /possible etag mismatch/,
      );
      expect(await failure(client.state.delete(store, "etag", { etag: await etagOf("etag") }))).toBe("");
      expect(await client.state.get(store, "etag")).toBe("");
    });

    test("first-write without an ETag only creates", async () => {
      const options = {
        concurrency: StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE,
        consistency: StateConsistencyEnum.CONSISTENCY_STRONG,
      };
      expect(
        await client.state.save(store, [{ key: "first", value: "one", options: { ...options } }]),
      ).toEqual({});
      const again = client.state.save(store, [{ key: "first", value: "two", options: { ...options } }]);
      expect(await failure(again)).toMatch(/possible etag mismatch/);
      expect(await client.state.get(store, "first")).toBe("one");
    });

    test("a value with a time to live goes", async () => {
      // Again if its time is over before it is read.
      await eventually(async () => {
        await client.state.save(store, [{ key: "short", value: "here", metadata: { ttlInSeconds: "1" } }]);
        expect(await client.state.get(store, "short")).toBe("here");
      });
      await eventually(async () => (await client.state.get(store, "short")) === "", { timeoutMs: 20_000 });
    });

    test("a transaction writes and deletes at once", async () => {
      await client.state.save(store, [{ key: "gone", value: "x" }]);
      await client.state.transaction(store, [
        { operation: "upsert", request: { key: "came", value: "new" } },
        { operation: "upsert", request: { key: "also", value: "newer" } },
        { operation: "delete", request: { key: "gone" } },
      ]);
      expect(await client.state.get(store, "came")).toBe("new");
      expect(await client.state.get(store, "also")).toBe("newer");
      expect(await client.state.get(store, "gone")).toBe("");
    });

    test("a transaction with an old ETag does nothing", async () => {
      await client.state.save(store, [{ key: "guarded", value: "kept" }]);
      const refused = client.state.transaction(store, [
        { operation: "upsert", request: { key: "beside", value: "never" } },
        { operation: "upsert", request: { key: "guarded", value: "never", etag: { value: "1" } } },
      ]);
      await refused.catch(() => {});
      expect(await client.state.get(store, "guarded")).toBe("kept");
      expect(await client.state.get(store, "beside")).toBe("");
    });

    test("an unknown store is an error that names it", async () => {
      const saved = client.state.save("no-store", [{ key: "k", value: "v" }]);
      expect(await failure(saved)).toMatch(/state store no-store is not found/);
    });
  });

  test("locks", async () => {
    expect(await client.lock.lock("locks", "js", "one", 60)).toEqual({ success: true });
    expect(await client.lock.lock("locks", "js", "two", 60)).toEqual({ success: false });
    const status = async (owner: string): Promise<unknown> =>
      (await client.lock.unlock("locks", "js", owner)).status;
    // Belongs to others, done, does not exist.
    expect([await status("two"), await status("one"), await status("one")]).toEqual([2, 0, 1]);
  });

  test("configuration: get, and changes", async () => {
    // The SDK has it over gRPC alone.
    const overGrpc = new DaprClient({
      daprHost: "127.0.0.1",
      daprPort: String(till.sidecar.grpcPort),
      communicationProtocol: CommunicationProtocolEnum.GRPC,
    });
    const { configuration } = overGrpc;
    const found = await configuration.get("settings", ["fixed", "absent"]);
    expect(Object.keys(found.items)).toEqual(["fixed"]);
    expect(found.items["fixed"]?.value).toBe("blue");
    const values = new Set<string>();
    const stream = await configuration.subscribeWithKeys("settings", ["changing"], async ({ items }) => {
      const { value } = items["changing"] ?? {};
      if (value !== undefined) values.add(value);
    });
    await eventually(() => expect(values.size).toBeGreaterThan(1));
    stream.stop();
    await overGrpc.stop();
  });
});
