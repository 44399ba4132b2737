import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { bound, broken, failure, openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { EtagInvalid, type StateStore } from "./port.ts";

const store = "/v1.0/state/store";

async function saved(body: string, path = store): Promise<Awaited<ReturnType<typeof testStateBlock>>> {
  const tested = await testStateBlock();
  const reply = await tested.http("POST", path, { body });
  expect(reply).toEqual({ status: 204, headers: {}, text: "" });
  return tested;
}

describe("save over HTTP", () => {
  it.each([
    ["an object", `{"b":1,"a":"x"}`, `{"a":"x","b":1}`],
    ["a string, with its quotes", `"hello"`, `"hello"`],
    ["null", "null", "null"],
    ["markup", `"<a&b>"`, `"\\u003ca\\u0026b\\u003e"`],
    ["numbers as float64", "[9007199254740993, 1.50, 1e2]", "[9007199254740992,1.5,100]"],
    ["nested data", `[[],{},[{"z":[1]}]]`, `[[],{},[{"z":[1]}]]`],
  ])("stores %s as JSON", async (_, value, stored) => {
    const tested = await saved(`[{"key":"k","value":${value}}]`);
    expect((await tested.http("GET", `${store}/k`)).text).toBe(stored);
  });

  it("stores null for an item without value", async () => {
    const tested = await saved(`[{"key":"k"}]`);
    expect((await tested.http("GET", `${store}/k`)).text).toBe("null");
  });

  it("matches members in any case, ignores unknown ones and text after the value", async () => {
    const tested = await saved(
      `[{"KEY":"k","Value":1,"x":2,"Options":{"Concurrency":"last-write"}}] trailing`,
    );
    expect((await tested.http("GET", `${store}/k`)).text).toBe("1");
  });

  it.each(["[]", "null"])("takes %s as nothing to do", async (body) => {
    const tested = await saved(body);
    expect(tested.counted).toEqual([]);
  });

  it("answers PUT as POST", async () => {
    const tested = await testStateBlock();
    expect((await tested.http("PUT", store, { body: `[{"key":"k","value":1}]` })).status).toBe(204);
  });

  it.each([
    ["no JSON", "nope", "invalid character 'o' in literal null (expecting 'u')"],
    ["an empty body", "", "EOF"],
    ["a cut body", `[{"key":`, "unexpected EOF"],
    ["an object", `{"key":"k"}`, "the body must be an array, but is of type object"],
    ["a key that is no string", `[{"key":1}]`, '"key" of item 0 must be a string, but is of type number'],
    ["an item that is no object", `[{"key":"a"},7]`, "item 1 must be an object, but is of type number"],
    [
      "an ETag that is no string",
      `[{"key":"k","etag":1}]`,
      '"etag" of item 0 must be a string, but is of type number',
    ],
    [
      "metadata that is no string",
      `[{"key":"k","metadata":{"a":1}}]`,
      `item 0's metadata "a" must be a string, but is of type number`,
    ],
  ])("refuses %s", async (_, body, message) => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", store, { body });
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.text)).toEqual({ errorCode: "ERR_MALFORMED_REQUEST", message });
    expect(tested.counted).toEqual([]);
  });

  it("refuses JSON nested too deeply", async () => {
    const tested = await testStateBlock();
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    const reply = await tested.http("POST", store, { body: `[{"key":"k","value":${deep}}]` });
    expect(reply).toMatchObject({
      status: 400,
      text: `{"errorCode":"ERR_MALFORMED_REQUEST","message":"exceeded max depth"}`,
    });
  });

  it.each([`[{"key":""}]`, `[{}]`, "[null]", `[{"key":"a","value":1},{"key":null}]`])(
    "refuses an empty key before it writes anything: %s",
    async (body) => {
      const tested = await testStateBlock();
      const reply = await tested.http("POST", store, { body });
      expect(reply).toMatchObject({
        status: 400,
        text: `{"errorCode":"ERR_MALFORMED_REQUEST","message":"\\"key\\" is a required field"}`,
      });
      expect((await tested.http("GET", `${store}/a`)).status).toBe(204);
    },
  );

  it("refuses a key with ||, naming it", async () => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", store, { body: `[{"key":"a||b","value":1}]` });
    const description = "input key/keyPrefix 'a||b' can't contain '||'";
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_MALFORMED_REQUEST",
      message: `api error: code = InvalidArgument desc = ${description}`,
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.BadRequest",
          field_violations: [{ description, field: "a||b" }],
        },
        {
          "@type": "type.googleapis.com/google.rpc.ResourceInfo",
          description: "",
          owner: "",
          resource_name: "store",
          resource_type: "state",
        },
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          domain: "dapr.io",
          metadata: null,
          reason: "DAPR_STATE_ILLEGAL_KEY",
        },
      ],
    });
  });

  it.each([
    ["concurrency", "unrecognized concurrency model 'x'"],
    ["consistency", "unrecognized consistency model 'x'"],
  ])("refuses an unknown %s", async (option, text) => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", store, { body: `[{"key":"k","options":{"${option}":"x"}}]` });
    const message = `failed saving state in state store store: ${text}`;
    expect(reply).toMatchObject({
      status: 500,
      text: JSON.stringify({ errorCode: "ERR_STATE_SAVE", message }),
    });
  });

  it.each(["1.5", "abc", "1s", "99999999999999999999"])("refuses the time to live %s", async (ttl) => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", `${store}?metadata.ttlInSeconds=${ttl}`, {
      body: `[{"key":"k"}]`,
    });
    expect(reply.status).toBe(500);
    expect(reply.text).toContain("incorrect value for metadata 'ttlInSeconds': ");
  });

  it.each([
    ["deletes", 500],
    ["writes", 204],
  ] as const)("takes any option in %s of a store that does", async (takesAnyOption, saves) => {
    const lenient = { ...bound(await openInMemory(manualClock())), rules: { takesAnyOption } };
    const tested = await testStateBlock({ stores: { store: lenient } });
    const body = `[{"key":"k","value":1,"options":{"concurrency":"x"}}]`;
    expect((await tested.http("POST", store, { body })).status).toBe(saves);
    expect((await tested.http("DELETE", `${store}/k?consistency=x`)).status).toBe(204);
  });

  it("leaves the time to live alone where the store has none", async () => {
    const ignoring = { ...bound(await openInMemory(manualClock())), rules: { ignoresTtl: true } };
    const tested = await testStateBlock({ stores: { store: ignoring } });
    const body = `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"soon"}}]`;
    expect((await tested.http("POST", store, { body })).status).toBe(204);
    expect((await tested.http("GET", `${store}/k`)).headers["Metadata.ttlexpiretime"]).toBeUndefined();
  });

  it("lets metadata of the URL win over the item's", async () => {
    const body = `[{"key":"k","value":1,"metadata":{"ttlInSeconds":"5"}}]`;
    const tested = await saved(body, `${store}?metadata.ttlInSeconds=100`);
    const { headers } = await tested.http("GET", `${store}/k`);
    expect(headers["Metadata.ttlexpiretime"]).toBe("2025-01-01T00:01:40Z");
  });
});

describe("get over HTTP", () => {
  it("answers the stored bytes with ETag", async () => {
    const tested = await saved(`[{"key":"k","value":"v"}]`);
    const reply = await tested.http("GET", `${store}/k`);
    expect(reply.status).toBe(200);
    expect(reply.text).toBe(`"v"`);
    expect(reply.headers).toEqual({
      "Content-Type": "application/json",
      Etag: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
  });

  it("answers 204 for an absent and for an expired key", async () => {
    const tested = await saved(`[{"key":"k","value":1,"metadata":{"ttlInSeconds":"5"}}]`);
    expect((await tested.http("GET", `${store}/other`)).status).toBe(204);
    tested.clock.advance(4_999);
    expect((await tested.http("GET", `${store}/k`)).status).toBe(200);
    tested.clock.advance(1);
    expect(await tested.http("GET", `${store}/k`)).toEqual({ status: 204, headers: {}, text: "" });
  });

  it("answers an empty value with 200, or with 204 where the store hides it", async () => {
    const hiding = await openInMemory(manualClock());
    for (const [port, status] of [
      [hiding, 204],
      [bound(hiding), 200],
    ] as const) {
      const tested = await testStateBlock({ stores: { store: port } });
      await tested.grpc(Dapr.method.saveState, { storeName: "store", states: [{ key: "k" }] });
      expect(await tested.http("GET", `${store}/k`)).toMatchObject({ status, text: "" });
      expect((await tested.grpc(Dapr.method.getState, { storeName: "store", key: "k" })).etag).not.toBe("");
    }
  });

  it("takes any key the router hands over, also one named like a call", async () => {
    const tested = await saved(`[{"key":"a/b +%","value":1},{"key":"bulk","value":2}]`);
    expect((await tested.http("GET", `${store}/a%2Fb+%2B%25`)).text).toBe("1");
    expect((await tested.http("GET", `${store}/bulk`)).text).toBe("2");
  });

  it("ignores unknown consistency and passes known ones on", async () => {
    const seen: string[] = [];
    const inner = await openInMemory(manualClock());
    const spy: StateStore = {
      ...bound(inner),
      get: (key, options) => (seen.push(options.consistency), inner.get(key, options)),
    };
    const tested = await testStateBlock({ stores: { store: spy } });
    for (const query of ["", "?consistency=strong", "?consistency=eventual", "?consistency=x"]) {
      expect((await tested.http("GET", `${store}/k${query}`)).status).toBe(204);
    }
    expect(seen).toEqual(["", "strong", "eventual", ""]);
  });

  it("refuses a key with ||", async () => {
    const tested = await testStateBlock();
    expect((await tested.http("GET", `${store}/a%7C%7Cb`)).status).toBe(400);
  });

  it("names a failure of the store", async () => {
    const tested = await testStateBlock({ stores: { store: broken(new Error("disk on fire")) } });
    const reply = await tested.http("GET", `${store}/k`);
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_STATE_GET",
      message: "fail to get k from state store store: disk on fire",
    });
    expect(tested.counted).toEqual(["store default get false"]);
  });
});

describe("ETags over HTTP", () => {
  it("compares and sets", async () => {
    const tested = await saved(`[{"key":"k","value":1}]`);
    const etag = (await tested.http("GET", `${store}/k`)).headers["Etag"];
    const body = `[{"key":"k","value":2,"etag":"${String(etag)}"}]`;
    expect((await tested.http("POST", store, { body })).status).toBe(204);
    const second = await tested.http("POST", store, { body });
    expect(second.status).toBe(409);
    expect(JSON.parse(second.text)).toEqual({
      errorCode: "ERR_STATE_SAVE",
      message: "failed saving state in state store store: possible etag mismatch. error from state store",
    });
    expect((await tested.http("GET", `${store}/k`)).text).toBe("2");
  });

  it("takes an empty ETag as none, and first-write without ETag as create", async () => {
    const tested = await saved(`[{"key":"k","value":1,"etag":""}]`);
    expect((await tested.http("POST", store, { body: `[{"key":"k","value":2,"etag":null}]` })).status).toBe(
      204,
    );
    const create = `[{"key":"k","value":3,"options":{"concurrency":"first-write"}}]`;
    expect((await tested.http("POST", store, { body: create })).status).toBe(409);
    expect((await tested.http("DELETE", `${store}/k`)).status).toBe(204);
    expect((await tested.http("POST", store, { body: create })).status).toBe(204);
  });

  it("deletes by If-Match", async () => {
    const tested = await saved(`[{"key":"k","value":1}]`);
    const wrong = await tested.http("DELETE", `${store}/k`, { headers: { "if-match": "x" } });
    expect(wrong.status).toBe(409);
    expect(JSON.parse(wrong.text)).toEqual({
      errorCode: "ERR_STATE_DELETE",
      message: "failed deleting state with key k: possible etag mismatch. error from state store",
    });
    const etag = String((await tested.http("GET", `${store}/k`)).headers["Etag"]);
    expect((await tested.http("DELETE", `${store}/k`, { headers: { "if-match": etag } })).status).toBe(204);
    expect((await tested.http("DELETE", `${store}/k`, { headers: { "if-match": etag } })).status).toBe(409);
    expect((await tested.http("DELETE", `${store}/k`)).status).toBe(204);
  });

  it("refuses unknown options of a delete", async () => {
    const tested = await testStateBlock();
    const reply = await tested.http("DELETE", `${store}/k?concurrency=x`);
    expect(reply.status).toBe(500);
    expect(reply.text).toContain("failed deleting state with key k: unrecognized concurrency model 'x'");
  });

  it("answers 400 for an ETag that cannot be one", async () => {
    const tested = await testStateBlock({ stores: { store: broken(new EtagInvalid("not a number")) } });
    const reply = await tested.http("POST", store, { body: `[{"key":"k","value":1,"etag":"x"}]` });
    expect(reply.status).toBe(400);
    expect(reply.text).toContain(
      "failed saving state in state store store: invalid etag value: not a number",
    );
  });
});

describe("unknown stores and queries over HTTP", () => {
  it("tells an unknown store from none at all", async () => {
    const unknown = await (await testStateBlock()).http("GET", "/v1.0/state/nope/k");
    expect(unknown.status).toBe(400);
    expect(JSON.parse(unknown.text)).toEqual({
      errorCode: "ERR_STATE_STORE_NOT_FOUND",
      message: "state store nope is not found",
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          domain: "dapr.io",
          metadata: { appID: "app" },
          reason: "DAPR_STATE_NOT_FOUND",
        },
      ],
    });
    const none = await (await testStateBlock({ stores: {} })).http("POST", "/v1.0/state/nope", { body: "x" });
    expect(none.status).toBe(500);
    expect(none.text).toContain(
      `{"errorCode":"ERR_STATE_STORE_NOT_CONFIGURED","message":"state store nope is not configured"`,
    );
  });

  it("has no queries", async () => {
    const tested = await testStateBlock();
    const reply = await tested.http("POST", "/v1.0-alpha1/state/store/query", { body: "{}" });
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.text)).toMatchObject({
      errorCode: "ERR_STATE_STORE_NOT_SUPPORTED",
      message: "state store does not support querying",
      details: [{ resource_name: "store" }, { reason: "DAPR_STATE_QUERYING_NOT_SUPPORTED" }],
    });
    const unknown = await tested.http("PUT", "/v1.0-alpha1/state/nope/query", { body: "{}" });
    expect(JSON.parse(unknown.text)).toMatchObject({
      errorCode: "ERR_STATE_STORE_NOT_FOUND",
      details: [{ metadata: null }],
    });
  });
});

describe("failures on the way", () => {
  it("keeps the cause for the log and off the wire", async () => {
    const cause = new Error("boom");
    const tested = await testStateBlock({ stores: { store: broken(cause) } });
    const error = await failure(tested.grpc(Dapr.method.getState, { storeName: "store", key: "k" }));
    expect(error.cause).toBe(cause);
  });
});
