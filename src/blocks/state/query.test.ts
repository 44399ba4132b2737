import { describe, expect, it } from "vitest";
import { bound, openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { StateQuery, StateQueryRow } from "./port.ts";
import { parseQuery } from "./query.ts";

describe("the language of queries", () => {
  it("reads filter, sort and page", () => {
    const text = JSON.stringify({
      filter: { AND: [{ EQ: { "person.org": "Dev" } }, { OR: [{ IN: { a: [1, "x"] } }, { GT: { b: 2 } }] }] },
      sort: [{ key: "person.id", order: "DESC" }, { key: "x" }],
      page: { limit: 3, token: "6" },
    });
    expect(parseQuery(text)).toEqual({
      filter: {
        operator: "AND",
        filters: [
          { operator: "EQ", path: ["person", "org"], operand: "Dev" },
          {
            operator: "OR",
            filters: [
              { operator: "IN", path: ["a"], operands: [1, "x"] },
              { operator: "GT", path: ["b"], operand: 2 },
            ],
          },
        ],
      },
      sort: [
        { path: ["person", "id"], descending: true },
        { path: ["x"], descending: false },
      ],
      limit: 3,
      offset: 6,
    });
    expect(parseQuery("{}")).toEqual({ sort: [], limit: 0, offset: 0 });
    expect(parseQuery('{"filter":{}}')).toEqual({ sort: [], limit: 0, offset: 0 });
  });

  it.each([
    ["", "unexpected end of JSON input"],
    ['{"filter":{"EQ":{"a":1},"NEQ":{"a":1}}}', "exactly one operator"],
    ['{"filter":{"EQ":{"a":1,"b":2}}}', "exactly one property"],
    ['{"filter":{"LIKE":{"a":1}}}', "unsupported filter LIKE"],
    ['{"filter":{"AND":[{"EQ":{"a":1}}]}}', "at least two filters"],
    ['{"filter":{"IN":{"a":[]}}}', "at least one value"],
    ['{"filter":{"GT":{"a":"x"}}}', "GT compares numbers only"],
    ['{"sort":[{"key":"a","order":"up"}]}', "must be ASC or DESC"],
    ['{"page":{"token":"x"}}', '"token" must be one that an earlier answer gave'],
    ['{"page":{"limit":-1}}', '"limit" must not be negative'],
  ])("refuses %s", (text, reason) => {
    expect(() => parseQuery(text)).toThrow(/^failed to parse JSON query body: /);
    expect(() => parseQuery(text)).toThrow(reason);
  });

  it("refuses filters without end", () => {
    const deep = '{"OR":['.repeat(40) + '{"EQ":{"a":1}},{"EQ":{"a":1}}' + "]}".repeat(40);
    expect(() => parseQuery(`{"filter":${deep}}`)).toThrow("at least two filters");
    const nested = Array.from({ length: 40 }).reduce<string>(
      (inner) => `{"OR":[{"EQ":{"a":1}},${inner}]}`,
      '{"EQ":{"a":1}}',
    );
    expect(() => parseQuery(`{"filter":${nested}}`)).toThrow("nested deeper than 32");
    const wide = `{"OR":[${Array.from({ length: 1_001 }, () => '{"EQ":{"a":1}}').join(",")}]}`;
    expect(() => parseQuery(`{"filter":${wide}}`)).toThrow("more than 1000 filters");
  });
});

describe("queries over both protocols", () => {
  const rows: StateQueryRow[] = [
    { key: "app||a", value: Buffer.from('{"x": 1}'), etag: "7" },
    { key: "other||b||c", value: Buffer.from("text"), etag: "" },
    { key: "bare", value: Buffer.from("null"), etag: "" },
  ];
  const open = async (found: readonly StateQueryRow[] | Error) => {
    const asked: StateQuery[] = [];
    const store = {
      ...bound(await openInMemory(manualClock())),
      async query(query: StateQuery) {
        asked.push(query);
        if (found instanceof Error) throw found;
        return found;
      },
    };
    return { asked, tested: await testStateBlock({ stores: { store } }) };
  };
  const path = "/v1.0-alpha1/state/store/query";

  it("answers rows with the keys that apps know", async () => {
    const { asked, tested } = await open(rows);
    const answer = await tested.http("POST", path, { body: '{"page":{"limit":3,"token":"6"}}' });
    expect(answer).toMatchObject({
      status: 200,
      text:
        '{"results":[{"key":"a","data":{"x":1},"etag":"7"},{"key":"b","data":"text"},' +
        '{"key":"bare","data":null}],"token":"9"}\n',
    });
    expect(asked).toEqual([{ sort: [], limit: 3, offset: 6 }]);
    await tested.http("POST", path, { body: "{}" });
    expect(asked[1]).toEqual({ sort: [], limit: 10_001, offset: 0 });
    const request = { storeName: "store", query: "{}" };
    const overGrpc = await tested.grpc(Dapr.method.queryStateAlpha1, request);
    expect(overGrpc.results?.[1]).toMatchObject({ key: "b", data: Buffer.from("text"), etag: "" });
    expect(overGrpc.token).toBe("");
  });

  it("answers 204 without rows", async () => {
    const { tested } = await open([]);
    expect((await tested.http("PUT", path, { body: '{"page":{"limit":3}}' })).status).toBe(204);
  });

  it("refuses to hold more than 10,000 rows", async () => {
    const { tested } = await open(Array.from({ length: 10_001 }, () => rows[0]!));
    const answer = await tested.http("POST", path, { body: '{"page":{"limit":20000}}' });
    expect(answer.status).toBe(500);
    expect(answer.text).toContain("more than 10000 rows; ask for them page by page");
  });

  it("names what failed", async () => {
    const { tested } = await open(new Error("away"));
    const answer = await tested.http("POST", path, { body: "{}" });
    expect(answer.status).toBe(500);
    expect(JSON.parse(answer.text)).toEqual({
      errorCode: "ERR_STATE_QUERY",
      message: "state store store query failed: away",
      details: [
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
          reason: "DAPR_STATE_QUERY_FAILED",
        },
      ],
    });
    const bad = await tested.http("POST", path, { body: "{" });
    expect(bad.text).toContain("query failed: failed to parse JSON query body: unexpected end of JSON input");
  });
});
