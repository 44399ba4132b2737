import { expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { type StateBlockOptions, openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";

it.each<[Record<string, string>, StateBlockOptions, string]>([
  [{}, {}, "app||k"],
  [{ keyPrefix: "appid" }, { namespace: "ns" }, "app||k"],
  [{ KEYPREFIX: "Name" }, {}, "store||k"],
  [{ keyprefix: "namespace" }, { namespace: "ns" }, "ns.app||k"],
  [{ keyPrefix: "namespace" }, {}, "app||k"],
  [{ keyPrefix: "namespace" }, { namespace: "default" }, "default.app||k"],
  [{ keyPrefix: "none" }, {}, "k"],
  [{ keyPrefix: "Shared" }, {}, "shared||k"],
  [{ keyPrefix: "" }, {}, "||k"],
])("stores under the prefix of %j with options %j as %s", async (properties, sidecar, storedKey) => {
  const store = await openInMemory(manualClock());
  const tested = await testStateBlock({ stores: { store }, properties, ...sidecar });
  await tested.http("POST", "/v1.0/state/store", { body: `[{"key":"k","value":1}]` });
  const read = { consistency: "", metadata: {}, signal: new AbortController().signal } as const;
  expect(Buffer.from((await store.get(storedKey, read))!.value).toString()).toBe("1");
  expect((await tested.http("GET", "/v1.0/state/store/k")).text).toBe("1");
  const bulk = await tested.http("POST", "/v1.0/state/store/bulk", { body: `{"keys":["k"]}` });
  expect(JSON.parse(bulk.text)).toMatchObject([{ key: "k", data: 1 }]);
  expect(tested.counted[0]).toBe(`store ${sidecar.namespace ?? "default"} set true`);
});

it("refuses a prefix that holds the separator", async () => {
  const message = "input key/keyPrefix 'a||b' can't contain '||'";
  await expect(testStateBlock({ properties: { keyPrefix: "a||b" } })).rejects.toThrow(message);
});
