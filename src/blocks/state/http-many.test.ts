import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { bound, broken, openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";
import { EtagInvalid, EtagMismatch, type StateStore } from "./port.ts";

const store = "/v1.0/state/store";

async function saved(body: string, path = store): Promise<Awaited<ReturnType<typeof testStateBlock>>> {
  const tested = await testStateBlock();
  const reply = await tested.http("POST", path, { body });
  expect(reply).toEqual({ status: 204, headers: {}, text: "" });
  return tested;
}

describe("several items over HTTP", () => {
  const mismatch = "possible etag mismatch. error from state store";

  async function saveTwo(
    failures: Readonly<Record<string, Error>>,
  ): Promise<{ status: number; message: string }> {
    const inner = await openInMemory(manualClock());
    const picky: StateStore = {
      ...bound(inner),
      set: async (write, signal) => {
        const error = failures[write.key.slice("app||".length)];
        if (error !== undefined) throw error;
        await inner.set(write, signal);
      },
    };
    const tested = await testStateBlock({ stores: { store: picky } });
    const body = JSON.stringify(["a", "b", "c"].map((key) => ({ key, value: key })));
    const reply = await tested.http("POST", store, { body });
    expect((await tested.http("GET", `${store}/c`)).text).toBe(`"c"`);
    return { status: reply.status, message: (JSON.parse(reply.text) as { message: string }).message };
  }

  const prefix = "failed saving state in state store store: ";
  it.each([
    ["one mismatch", { a: new EtagMismatch() }, 409, `${mismatch}: ${mismatch}`],
    [
      "two mismatches",
      { a: new EtagMismatch("x"), b: new EtagMismatch() },
      409,
      `${mismatch}: ${mismatch}: x\n${mismatch}`,
    ],
    [
      "a malformed one too",
      { a: new EtagMismatch(), b: new EtagInvalid() },
      400,
      `invalid etag value: ${mismatch}\ninvalid etag value`,
    ],
    ["a mixture", { a: new Error("boom"), b: new EtagMismatch("x") }, 409, `${mismatch}: x`],
    ["no ETag error", { a: new Error("boom"), b: new Error("bang") }, 500, "boom\nbang"],
  ])("writes the others and joins the errors: %s", async (_, failures, status, message) => {
    expect(await saveTwo(failures)).toEqual({ status, message: prefix + message });
  });

  it("writes hundreds in one call", async () => {
    const items = Array.from({ length: 500 }, (_, index) => ({ key: `k${index}`, value: index }));
    const tested = await saved(JSON.stringify(items));
    expect((await tested.http("GET", `${store}/k499`)).text).toBe("499");
    expect(tested.counted[0]).toBe("store default set true");
  });
});

describe("bulk get over HTTP", () => {
  it("answers one entry per key, in order, ending in a newline", async () => {
    const tested = await saved(
      `[{"key":"a","value":{"b":"<"}},{"key":"t","value":1,"metadata":{"ttlInSeconds":"9"}}]`,
    );
    const reply = await tested.http("POST", `${store}/bulk`, {
      body: `{"keys":["t","none","a"],"parallelism":2} x`,
    });
    expect(reply.status).toBe(200);
    expect(reply.headers).toEqual({ "Content-Type": "application/json" });
    const etag = /"etag":"[0-9a-f-]{36}"/g;
    expect(reply.text.replace(etag, `"etag":"E"`)).toBe(
      `[{"key":"t","data":1,"etag":"E","metadata":{"ttlExpireTime":"2025-01-01T00:00:09Z"}},` +
        `{"key":"none"},{"key":"a","data":{"b":"\\u003c"},"etag":"E"}]\n`,
    );
    expect(tested.counted.at(-1)).toBe("store default bulk_get true");
  });

  it.each([`{"keys":[]}`, "{}", "null"])("answers an empty list for %s", async (body) => {
    const tested = await testStateBlock();
    expect((await tested.http("PUT", `${store}/bulk`, { body })).text).toBe("[]\n");
  });

  it.each([
    ["", "failed deserializing HTTP body: EOF"],
    ["[]", "failed deserializing HTTP body: the body must be an object, but is an array"],
    [`{"keys":"a"}`, `failed deserializing HTTP body: "keys" must be an array, but is of type string`],
    [`{"keys":[1]}`, "failed deserializing HTTP body: key 0 must be a string, but is of type number"],
    [
      `{"parallelism":1.5}`,
      `failed deserializing HTTP body: "parallelism" must be a whole number, but is of type number`,
    ],
  ])("refuses %s", async (body, message) => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", `${store}/bulk`, { body });
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.text)).toEqual({ errorCode: "ERR_MALFORMED_REQUEST", message });
  });

  it("asks a store without bulk reads key by key and puts a failure into its entry", async () => {
    const inner = await openInMemory(manualClock());
    let running = 0;
    let most = 0;
    const { getMany: _, ...single } = bound(inner);
    const slow: StateStore = {
      ...single,
      get: async (key, options) => {
        most = Math.max(most, ++running);
        await Promise.resolve();
        running--;
        if (key === "app||b") throw new Error("boom");
        return inner.get(key, options);
      },
    };
    const tested = await testStateBlock({ stores: { store: slow } });
    await tested.http("POST", store, { body: `[{"key":"a","value":1},{"key":"c","value":3}]` });
    const reply = await tested.http("POST", `${store}/bulk`, {
      body: `{"keys":["a","b","c"],"parallelism":2}`,
    });
    expect(JSON.parse(reply.text)).toMatchObject([
      { key: "a", data: 1 },
      { key: "b", error: "boom" },
      { key: "c", data: 3 },
    ]);
    expect(most).toBe(2);
  });

  it("names a failure of the whole call", async () => {
    const tested = await testStateBlock({ stores: { store: broken(new Error("boom")) } });
    const reply = await tested.http("POST", `${store}/bulk`, { body: `{"keys":["a"]}` });
    expect(reply).toMatchObject({ status: 500, text: `{"errorCode":"ERR_STATE_BULK_GET","message":"boom"}` });
  });
});

describe("transactions over HTTP", () => {
  const path = `${store}/transaction`;

  it("does all operations", async () => {
    const tested = await saved(`[{"key":"gone","value":1}]`);
    const body = `{"Operations":[{"operation":"upsert","Request":{"key":"a","value":{"x":1}}},
      {"operation":"delete","request":{"key":"gone"}},{"operation":"upsert","request":null}],"metadata":{"m":"1"}} x`;
    expect((await tested.http("POST", `${path}?metadata.ttlInSeconds=7`, { body })).status).toBe(204);
    const reply = await tested.http("GET", `${store}/a`);
    expect(reply.text).toBe(`{"x":1}`);
    expect(reply.headers["Metadata.ttlexpiretime"]).toBe("2025-01-01T00:00:07Z");
    expect((await tested.http("GET", `${store}/gone`)).status).toBe(204);
    expect(tested.counted).toContain("store default transaction true");
  });

  it.each(["{}", `{"operations":[]}`, "null"])("takes %s as nothing to do", async (body) => {
    const tested = await testStateBlock();
    expect((await tested.http("PUT", path, { body })).status).toBe(204);
  });

  it("answers 500 when an ETag does not match, and does nothing", async () => {
    const tested = await testStateBlock();
    const body = `{"operations":[{"operation":"upsert","request":{"key":"a","value":1}},
      {"operation":"upsert","request":{"key":"b","value":1,"etag":"x"}}]}`;
    const reply = await tested.http("POST", path, { body });
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_STATE_TRANSACTION",
      message:
        "error while executing state transaction: possible etag mismatch. error from state store (key 'b')",
    });
    expect((await tested.http("GET", `${store}/a`)).status).toBe(204);
  });

  it.each([
    ["no JSON", "", 400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: EOF"],
    [
      "another operation",
      `{"operations":[{"operation":"Upsert","request":{"key":"a"}}]}`,
      400,
      "ERR_NOT_SUPPORTED_STATE_OPERATION",
      "operation type Upsert not supported",
    ],
    [
      "no operation",
      `{"operations":[{"request":{"key":"a"}}]}`,
      400,
      "ERR_NOT_SUPPORTED_STATE_OPERATION",
      "operation type  not supported",
    ],
    [
      "another operation, whatever it holds",
      `{"operations":[{"operation":"read","request":{"key":5}}]}`,
      400,
      "ERR_NOT_SUPPORTED_STATE_OPERATION",
      "operation type read not supported",
    ],
    [
      "a wrong ETag type",
      `{"operations":[{"operation":"delete","request":{"key":"a","etag":5}}]}`,
      400,
      "ERR_MALFORMED_REQUEST",
      'failed deserializing HTTP body: "etag" of the request of operation 0 must be a string, but is of type number',
    ],
  ])("refuses %s", async (_, body, status, errorCode, message) => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", path, { body });
    expect(reply.status).toBe(status);
    expect(JSON.parse(reply.text)).toEqual({ errorCode, message });
  });

  it("refuses a key with || without naming the field", async () => {
    const tested = await testStateBlock();
    const body = `{"operations":[{"operation":"delete","request":{"key":"a||b"}}]}`;
    const { details } = JSON.parse((await tested.http("POST", path, { body })).text) as {
      details: unknown[];
    };
    expect(details[0]).toEqual({
      "@type": "type.googleapis.com/google.rpc.BadRequest",
      field_violations: [{ description: "input key/keyPrefix 'a||b' can't contain '||'" }],
    });
  });

  it("says which stores have transactions when this one has none, before it reads the body", async () => {
    const { transact: _, ...plain } = bound(await openInMemory(manualClock()));
    const tested = await testStateBlock({ stores: { store: plain } });
    const reply = await tested.http("POST", path, { body: "nonsense" });
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.text)).toMatchObject({
      errorCode: "ERR_STATE_STORE_NOT_SUPPORTED",
      message: "state store store doesn't support transactions",
      details: [
        { "@type": "type.googleapis.com/google.rpc.Help" },
        { "@type": "type.googleapis.com/google.rpc.ResourceInfo" },
        { reason: "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED" },
      ],
    });
  });

  it("refuses more operations than the store takes", async () => {
    const small: StateStore = { ...bound(await openInMemory(manualClock())), maxTransactionWrites: 2 };
    const tested = await testStateBlock({ stores: { store: small } });
    const operation = { operation: "upsert", request: { key: "a", value: 1 } };
    const reply = await tested.http("POST", path, {
      body: JSON.stringify({ operations: [operation, operation, operation] }),
    });
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.text)).toMatchObject({
      errorCode: "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
      message: "the transaction contains 3 operations, which is more than what the state store supports: 2",
      details: [{}, { metadata: { currentOpsTransaction: "3", maxOpsPerTransaction: "2" } }],
    });
  });
});
