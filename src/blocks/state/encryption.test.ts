import { createCipheriv } from "node:crypto";
import { describe, expect, it } from "vitest";
import { openInMemory, testStateBlock } from "../../../test/contract/state-block.ts";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { decrypt, encrypt, encryptionKeys } from "./encryption.ts";
import type { StateReadOptions, StateSet, StateStore } from "./port.ts";

const hex = { first: "00".repeat(16), second: "11".repeat(32) };
const entry = (name: string, secret: string | undefined) => {
  const secretKeyRef = secret === undefined ? undefined : { name: secret, key: "" };
  return { name, value: undefined, secretKeyRef, envRef: undefined, origin: { file: "f", line: 1 } };
};
const metadata = [entry("primaryEncryptionKey", "first"), entry("secondaryEncryptionKey", "second")];
const texts = { primaryEncryptionKey: hex.first, secondaryEncryptionKey: hex.second };
const keys = encryptionKeys({ name: "store", metadata } as never, texts)!;
const options: StateReadOptions = { consistency: "", metadata: {}, signal: new AbortController().signal };

describe("records of encryption at rest", () => {
  it("are read as other programs write them", () => {
    const nonce = Buffer.from("0123456789ab");
    const cipher = createCipheriv("aes-256-gcm", Buffer.from(hex.second, "hex"), nonce);
    const parts = [nonce, cipher.update("secret"), cipher.final(), cipher.getAuthTag()];
    const record = `${Buffer.concat(parts).toString("base64")}||second`;
    expect(Buffer.from(decrypt(keys, "store", Buffer.from(record))).toString()).toBe("secret");
  });

  it("come back, also empty ones, and never look the same twice", () => {
    for (const value of ["", "x", "||", "ü".repeat(1000)]) {
      const record = encrypt(keys.primary, Buffer.from(value));
      expect(record.toString()).toMatch(/^[A-Za-z0-9+/]+=*\|\|first$/);
      expect(Buffer.from(decrypt(keys, "store", record)).toString()).toBe(value);
    }
    expect(encrypt(keys.primary, Buffer.from("x"))).not.toEqual(encrypt(keys.primary, Buffer.from("x")));
    expect(decrypt(keys, "store", Buffer.alloc(0))).toHaveLength(0);
  });

  it.each([
    ["AAAA", "could not decrypt data for state store store: the record is not encrypted"],
    ["AAAA||", "could not decrypt data for state store store: encryption key name not found on record"],
    ["AAAA||third", "the record's key third is neither primary nor secondary key"],
    ["AAAA||first", "the record is too short"],
    [`${Buffer.alloc(40).toString("base64")}||first`, "cipher: message authentication failed"],
  ])("are refused: %s", (record, reason) => {
    expect(() => decrypt(keys, "store", Buffer.from(record))).toThrow(reason);
  });
});

describe("keys of encryption at rest", () => {
  it.each([
    [
      [entry("primaryEncryptionKey", undefined)],
      { primaryEncryptionKey: hex.first },
      "must come by secretKeyRef",
    ],
    [[entry("primaryEncryptionKey", "s")], { primaryEncryptionKey: "" }, "secret s gave no key"],
    [
      [entry("primaryEncryptionKey", "s")],
      { primaryEncryptionKey: "xyz" },
      "must be 16, 24 or 32 bytes in hex",
    ],
    [
      [entry("primaryEncryptionKey", "s")],
      { primaryEncryptionKey: "0011" },
      "must be 16, 24 or 32 bytes in hex",
    ],
    [[entry("PrimaryEncryptionKey", "s")], {}, "must be written primaryEncryptionKey"],
    [
      [entry("secondaryEncryptionKey", "s")],
      { secondaryEncryptionKey: hex.first },
      "needs primaryEncryptionKey",
    ],
  ])("are refused when values could end in clear: %#", async (items, properties, reason) => {
    await expect(testStateBlock({ metadata: items, properties })).rejects.toThrow(reason);
  });
});

describe("a store with encryption at rest", () => {
  const open = async (): Promise<{
    inner: StateStore;
    tested: Awaited<ReturnType<typeof testStateBlock>>;
  }> => {
    const inner = await openInMemory(manualClock());
    return { inner, tested: await testStateBlock({ stores: { store: inner }, metadata, properties: texts }) };
  };
  const put = (inner: StateStore, key: string, value: Buffer): Promise<void> => {
    const write: StateSet = {
      kind: "set",
      key,
      value,
      json: false,
      etag: undefined,
      createOnly: false,
      ttlSeconds: undefined,
      metadata: {},
    };
    return inner.set(write, options.signal);
  };

  it("keeps no value in clear, whatever the call", async () => {
    const { inner, tested } = await open();
    await tested.http("POST", "/v1.0/state/store", { body: '[{"key":"a","value":{"card":"4711"}}]' });
    const operations = [{ operation: "upsert", request: { key: "b", value: "4711" } }];
    await tested.http("POST", "/v1.0/state/store/transaction", { body: JSON.stringify({ operations }) });
    const states = [{ key: "c", value: Buffer.from("4711") }];
    await tested.grpc(Dapr.method.saveState, { storeName: "store", states });
    for (const key of ["a", "b", "c"]) {
      const { value } = (await inner.get(`app||${key}`, options))!;
      expect(Buffer.from(value).toString()).toMatch(/^[A-Za-z0-9+/]+=*\|\|first$/);
    }
    const read = await tested.http("GET", "/v1.0/state/store/a");
    expect(read.text).toBe('{"card":"4711"}');
    const bulk = await tested.http("POST", "/v1.0/state/store/bulk", { body: '{"keys":["a","b","c","d"]}' });
    const found = JSON.parse(bulk.text) as { key: string; data?: unknown }[];
    expect(found.map(({ data }) => data)).toEqual([{ card: "4711" }, 4711, 4711, undefined]);
  });

  it("gives back a string of an HTTP save without its quotes, all else as it was sent", async () => {
    const { tested } = await open();
    const values = { text: 'say "<é>"\n', empty: "", number: 1234567.5, nothing: null, list: ["a", 1] };
    const items = Object.entries(values).map(([key, value]) => ({ key, value }));
    await tested.http("POST", "/v1.0/state/store", { body: JSON.stringify(items) });
    const get = (key: string) => tested.http("GET", `/v1.0/state/store/${key}`);
    const read = async (key: string): Promise<string> => (await get(key)).text;
    const texts = await Promise.all(Object.keys(values).map(read));
    expect(texts).toEqual([values.text, "", "1234567.5", "null", '["a",1]']);
    expect((await get("empty")).status).toBe(204);
    const bulk = await tested.http("POST", "/v1.0/state/store/bulk", { body: '{"keys":["text"]}' });
    expect(JSON.parse(bulk.text)).toMatchObject([{ key: "text", data: values.text }]);
    const json = { key: "json", value: Buffer.from('"a"'), metadata: { contentType: "application/json" } };
    await tested.grpc(Dapr.method.saveState, { storeName: "store", states: [json] });
    expect(await read("json")).toBe('"a"');
  });

  it("reads rows of the secondary key, and writes them again under the primary", async () => {
    const { inner, tested } = await open();
    await put(inner, "app||old", encrypt(keys.secondary!, Buffer.from("1")));
    const read = await tested.http("GET", "/v1.0/state/store/old");
    expect(read.text).toBe("1");
    const item = { key: "old", value: 2, etag: read.headers["Etag"] };
    expect((await tested.http("POST", "/v1.0/state/store", { body: JSON.stringify([item]) })).status).toBe(
      204,
    );
    expect(Buffer.from((await inner.get("app||old", options))!.value).toString()).toMatch(/\|\|first$/);
  });

  it("answers what it cannot decrypt with the key's error, and goes on", async () => {
    const { inner, tested } = await open();
    await put(inner, "app||clear", Buffer.from('{"a":1}'));
    await put(inner, "app||good", encrypt(keys.primary, Buffer.from("1")));
    const answer = await tested.http("GET", "/v1.0/state/store/clear");
    expect(answer.status).toBe(500);
    expect(JSON.parse(answer.text)).toMatchObject({
      errorCode: "ERR_STATE_GET",
      message: expect.stringContaining("the record is not encrypted") as string,
    });
    const bulk = await tested.http("POST", "/v1.0/state/store/bulk", { body: '{"keys":["clear","good"]}' });
    expect(JSON.parse(bulk.text)).toMatchObject([
      { key: "clear", error: expect.stringContaining("not encrypted") as string },
      { key: "good", data: 1 },
    ]);
  });

  it("refuses queries", async () => {
    const inner = { ...(await openInMemory(manualClock())), query: async () => [] } as unknown as StateStore;
    const tested = await testStateBlock({ stores: { store: inner }, metadata, properties: texts });
    const answer = await tested.http("POST", "/v1.0-alpha1/state/store/query", { body: "{}" });
    expect(answer.text).toContain("state store store query failed: cannot query encrypted store");
  });
});
