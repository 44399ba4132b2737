// Documents as bytes: those of Dapr's own library, cuts and chunks of any length, and everything an attacker may do.
import { createHmac, hkdfSync } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../../mesh/index.ts";
import type { OpenComponent } from "../../components/open.ts";
import { noPolicies } from "../../resiliency/policies.ts";
import { Cryptography, type EncryptOptions } from "./crypto.ts";
import type { CryptoProvider } from "./port.ts";

const segment = 64 * 1024;
const sealed = segment + 16;
const signatureError = "failed to validate the document's signature";
const signal = new AbortController().signal;

/** Wraps by XOR, as the vectors do; knows the keys `key<1>` and `other`, which differ. */
const port: CryptoProvider = {
  wrapKey: ({ bytes, keyName }) => xor(bytes, keyName),
  unwrapKey: ({ bytes, keyName }) => xor(bytes, keyName),
  close: () => Promise.resolve(),
};

async function xor(bytes: Uint8Array, keyName: string): Promise<Uint8Array> {
  const mask = { "key<1>": 0x5a, other: 0x17 }[keyName];
  if (mask === undefined) throw new Error("key not found");
  return bytes.map((byte) => byte ^ mask);
}

const component = { port } as OpenComponent<CryptoProvider>;
const counted: string[] = [];
const cryptography = new Cryptography({
  components: { all: () => [component as never], get: () => component as never },
  options: { namespace: "n" } as never,
  clock: systemClock,
  policies: noPolicies,
  metrics: {
    count:
      () =>
      (...labels: string[]) =>
        counted.push(labels.join(" ")),
    latency: () => () => {},
  } as never,
});
const provider = { name: "p", port };
const plainOptions: EncryptOptions = {
  keyName: "key<1>",
  algorithm: "aes",
  cipher: "",
  decryptionKeyName: "",
  omitKeyName: false,
};

async function* chunksOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function encrypt(
  bytes: Uint8Array,
  more: Partial<EncryptOptions> = {},
  size = 10_000,
): Promise<Buffer> {
  const all: Uint8Array[] = [];
  const options = { ...plainOptions, ...more };
  for await (const chunk of cryptography.encrypt(provider, options, chunksOf(bytes, size), signal))
    all.push(...chunk);
  return Buffer.concat(all);
}

/** What came out, and the error that followed it. */
async function release(
  document: Uint8Array,
  keyName = "",
  size = 10_000,
): Promise<{ out: Buffer; error: string }> {
  const all: Uint8Array[] = [];
  let error = "";
  try {
    const chunks = chunksOf(document, size);
    for await (const chunk of cryptography.decrypt(provider, { keyName }, chunks, signal)) all.push(...chunk);
  } catch (thrown) {
    error = (thrown as Error).message;
  }
  return { out: Buffer.concat(all), error };
}

const sample = (length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) % 256));
const headerEnd = (document: Buffer): number => {
  let end = 0;
  for (let line = 0; line < 3; line++) end = document.indexOf("\n", end) + 1;
  return end;
};

type Vector = { readonly document: string; readonly plaintext: string; readonly cipher: string };
const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/crypto-documents.json", import.meta.url), "utf8"),
) as { readonly documents: readonly Vector[] };

describe("documents", () => {
  it.each(vectors.documents)("of Dapr ($cipher, $plaintext) are read", async ({ document, plaintext }) => {
    const { out, error } = await release(Buffer.from(document, "base64"));
    expect([out.toString(), error]).toEqual([plaintext, ""]);
  });

  it("are written as Dapr writes them", async () => {
    const document = await encrypt(Buffer.from("hello"));
    const lines = document.toString("latin1").split("\n");
    expect(lines[0]).toBe("dapr.io/enc/v1");
    expect(lines[1]).toMatch(
      /^\{"k":"key\\u003c1\\u003e","kw":1,"wfk":"[\w+/]{43}=","cph":1,"np":"[\w+/]{10}=="\}$/,
    );
    expect(document.length - headerEnd(document)).toBe(5 + 16);
  });

  it("name the key for decryption, or none", async () => {
    const line = async (more: Partial<EncryptOptions>): Promise<string> =>
      (await encrypt(Buffer.from("x"), more)).toString("latin1").split("\n")[1]!;
    expect(await line({ decryptionKeyName: "other" })).toMatch(/^\{"k":"other","kw":1,/);
    expect(await line({ omitKeyName: true })).toMatch(/^\{"kw":1,/);
    const nameless = await encrypt(Buffer.from("x"), { omitKeyName: true });
    const missing = "document's manifest does not contain a key name, and no key name was provided";
    expect((await release(nameless)).error).toBe(missing);
    expect((await release(nameless, "key<1>")).out.toString()).toBe("x");
  });

  it.each([0, 1, segment - 1, segment, segment + 1, 3 * segment, 3 * segment + 5])(
    "of %i bytes come back, whatever the chunks",
    async (length) => {
      for (const cipher of ["aes-gcm", "ChaCha20-Poly1305"]) {
        const document = await encrypt(sample(length), { cipher }, 70_001);
        for (const size of [1_000, sealed, 1_000_000]) {
          const { out, error } = await release(document, "", size);
          expect([out.equals(sample(length)), error]).toEqual([true, ""]);
        }
      }
    },
  );

  it("may come byte by byte", async () => {
    const { out } = await release(await encrypt(sample(100), {}, 1), "", 1);
    expect(out.equals(sample(100))).toBe(true);
  });

  it.each([
    [{ algorithm: "rot13" }, "option Algorithm is not valid: algorithm ROT13 is not supported"],
    [{ cipher: "des" }, "option Cipher is not valid: cipher DES is not supported"],
    [{ keyName: "nobody" }, "failed to wrap the file key: key not found"],
  ])("cannot be made with %j", async (more, message) => {
    await expect(encrypt(Buffer.from("x"), more)).rejects.toThrow(message);
  });

  it("cannot be made with a header that nobody could read", async () => {
    // Each < takes six of the 64 KiB.
    const decryptionKeyName = "<".repeat(11_000);
    await expect(encrypt(Buffer.from("x"), { decryptionKeyName })).rejects.toThrow("too long");
  });

  it("count each call of the provider", async () => {
    counted.length = 0;
    await release(await encrypt(Buffer.from("x")), "nobody");
    expect(counted).toEqual(["p n crypto_op true", "p n crypto_op false"]);
  });
});

describe("headers", () => {
  const manifest = '{"k":"key<1>","kw":1,"wfk":"AAAA","cph":1,"np":"AAAAAAAAAA=="}';
  it.each([
    ["", "invalid header: scheme name not found"],
    ["dapr.io/enc/v1", "invalid header: scheme name not found"],
    ["\n", "invalid header: invalid format"],
    ["dapr.io/enc/v2\n", "invalid header: unsupported scheme"],
    ["dapr.io/enc/v1\r\n", "invalid header: unsupported scheme"],
    ["dapr.io/enc/v1\n{}", "invalid header: manifest not found"],
    ["dapr.io/enc/v1\n\n", "invalid header: invalid format"],
    ["dapr.io/enc/v1\n{}\nAAAA", "invalid header: message authentication code not found"],
    ["dapr.io/enc/v1\n{}\nAAAA\n", "invalid header: invalid manifest"],
    ["dapr.io/enc/v1\n[]\nAAAA\n", "invalid header: invalid manifest"],
    [`dapr.io/enc/v1\n${manifest.replace('"kw":1', '"kw":6')}\nAAAA\n`, "invalid header: invalid manifest"],
    [`dapr.io/enc/v1\n${manifest}\nAAAA\n`, signatureError],
    [`dapr.io/enc/v1\n${manifest}\n!!\n`, signatureError],
    ["x".repeat(70_000), "invalid header: scheme name not found"],
    [`dapr.io/enc/v1\n${"x".repeat(70_000)}`, "invalid header: manifest not found"],
  ])("%#: nothing is released", async (text, message) => {
    expect(await release(Buffer.from(text))).toEqual({ out: Buffer.alloc(0), error: message });
  });

  it("may have members in any order and case, and others", async () => {
    const fileKey = Buffer.alloc(32, 7);
    const wrapped = Buffer.from(fileKey.map((byte) => byte ^ 0x5a)).toString("base64");
    const line = `{ "NP":"AAAAAAAAAA==", "Cph":1, "wFK":"${wrapped}", "new":{"x":1}, "kw":1, "K":"key<1>" }`;
    expect(await release(signed(line, fileKey))).toEqual({ out: Buffer.alloc(0), error: "" });
  });

  it("made on the file key of zeros are refused, whatever key they name", async () => {
    const zeros = Buffer.alloc(32);
    for (const [keyName, wfk] of [
      ["nobody", "AAAA"],
      ["key<1>", Buffer.alloc(32, 0x5a).toString("base64")],
    ]) {
      const line = `{"k":"${keyName}","kw":1,"wfk":"${wfk}","cph":1,"np":"AAAAAAAAAA=="}`;
      expect((await release(signed(line, zeros))).error).toBe(signatureError);
    }
  });

  function signed(line: string, fileKey: Buffer): Buffer {
    const lines = `dapr.io/enc/v1\n${line}\n`;
    const key = Buffer.from(hkdfSync("sha256", fileKey, "", "header", 32));
    return Buffer.from(`${lines}${createHmac("sha256", key).update(lines).digest("base64")}\n`);
  }
});

describe("an attacker", () => {
  const plain = sample(2 * segment + 100);

  it("who changes one byte anywhere gets nothing of that segment or a later one", async () => {
    const document = await encrypt(plain);
    const start = headerEnd(document);
    const property = fc.asyncProperty(
      fc.oneof(fc.nat(start - 1), fc.nat(document.length - 1)),
      fc.integer({ min: 1, max: 255 }),
      async (at, mask) => {
        const changed = Buffer.from(document);
        changed[at]! ^= mask;
        const { out, error } = await release(changed, "", 100_000);
        const proved = at < start ? 0 : Math.floor((at - start) / sealed) * segment;
        expect(error).not.toBe("");
        expect(out.equals(plain.subarray(0, proved))).toBe(true);
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });

  it("who changes bits of the MAC's text that its bytes do not hold gets nothing", async () => {
    const document = (await encrypt(plain)).toString("latin1");
    const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // The last digit before the padding carries two bits of no byte.
    const last = document.indexOf("=\n") - 1;
    const other = digits[digits.indexOf(document[last]!) ^ 1]!;
    const changed = document.slice(0, last) + other + document.slice(last + 1);
    const { out, error } = await release(Buffer.from(changed, "latin1"));
    expect(error).not.toBe("");
    expect(out.length).toBe(0);
  });

  it("who cuts the document gets whole segments before the cut and an error", async () => {
    const document = await encrypt(plain, { cipher: "chacha20-poly1305" });
    const start = headerEnd(document);
    const ends = [1, 16, 17, sealed - 1, sealed, sealed + 1, 2 * sealed, 2 * sealed + 16, 2 * sealed + 115];
    for (const end of ends) {
      const { out, error } = await release(document.subarray(0, start + end));
      const index = Math.ceil(end / sealed) - 1;
      expect(error).toBe(`error processing segment ${index}: failed to decrypt segment`);
      expect(out.equals(plain.subarray(0, index * segment))).toBe(true);
    }
  });

  it("who moves, repeats or adds segments gets nothing of them", async () => {
    const document = await encrypt(plain);
    const start = headerEnd(document);
    const [head, one, two, three] = [
      document.subarray(0, start),
      document.subarray(start, start + sealed),
      document.subarray(start + sealed, start + 2 * sealed),
      document.subarray(start + 2 * sealed),
    ];
    for (const [parts, proved] of [
      [[head, two, one, three], 0],
      [[head, one, one, three], 1],
      [[head, one, three], 1],
      [[head, one, two, three, Buffer.from("x")], 2],
    ] as const) {
      const { out, error } = await release(Buffer.concat(parts));
      expect(error).toBe(`error processing segment ${proved}: failed to decrypt segment`);
      expect(out.length).toBe(proved * segment);
    }
  });

  it("who has another key, or exchanges headers, gets nothing", async () => {
    const [first, second] = [await encrypt(plain), await encrypt(plain)];
    const nothing = Buffer.alloc(0);
    expect(await release(first, "other")).toEqual({ out: nothing, error: signatureError });
    expect(await release(first, "nobody")).toEqual({ out: nothing, error: signatureError });
    const mixed = Buffer.concat([first.subarray(0, headerEnd(first)), second.subarray(headerEnd(second))]);
    const error = "error processing segment 0: failed to decrypt segment";
    expect(await release(mixed)).toEqual({ out: nothing, error });
  });
});
