/**
 * What every crypto provider must do, as one suite over the port (src/blocks/crypto/port.ts). A provider joins by one
 * call of `cryptoContract` in crypto.test.ts, with a way to give it keys.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CryptoProvider, WrapAlgorithm } from "../../src/blocks/crypto/port.ts";

/** JSON Web Keys by name. */
export type Keys = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

export type CryptoFixture = { readonly provider: CryptoProvider; close(): Promise<void> };

const signal = new AbortController().signal;
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const rsa = privateKey.export({ format: "jwk" });
const publicRsa = createPublicKey(createPrivateKey({ key: rsa, format: "jwk" })).export({ format: "jwk" });
/** RFC 3394, 4.6. */
const known = Buffer.from([...Array(32).keys()]);
const knownData = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f";
const knownWrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21";
const oct = (bytes: Buffer): Record<string, unknown> => ({ kty: "oct", k: bytes.toString("base64url") });

export const contractKeys: Keys = {
  aes: oct(known),
  "aes-2": oct(randomBytes(32)),
  "aes-short": oct(randomBytes(16)),
  rsa,
  "rsa-public": publicRsa,
  signing: { ...oct(known), use: "sig" },
  "unwrap-only": { ...oct(known), use: "enc", key_ops: ["unwrapKey"] },
  "for-rsa": { ...oct(known), alg: "RSA-OAEP-256" },
  fitting: { ...oct(known), use: "enc", key_ops: ["wrapKey", "unwrapKey"], alg: "A256KW" },
};

/** Runs the suite; `open` gets the keys that the provider shall hold. */
export function cryptoContract(name: string, open: (keys: Keys) => Promise<CryptoFixture>): void {
  describe(`crypto provider ${name}`, () => {
    let fixture: CryptoFixture;
    const wrap = (keyName: string, algorithm: WrapAlgorithm, bytes: Uint8Array): Promise<Uint8Array> =>
      fixture.provider.wrapKey({ bytes, keyName, algorithm }, signal);
    const unwrap = (keyName: string, algorithm: WrapAlgorithm, bytes: Uint8Array): Promise<Uint8Array> =>
      fixture.provider.unwrapKey({ bytes, keyName, algorithm }, signal);

    beforeAll(async () => {
      fixture = await open(contractKeys);
    }, 30_000);
    afterAll(async () => {
      await fixture?.close();
    });

    it("wraps as RFC 3394 says", async () => {
      const data = Buffer.from(knownData, "hex");
      expect(Buffer.from(await wrap("aes", "A256KW", data)).toString("hex")).toBe(knownWrapped);
      const back = await unwrap("aes", "A256KW", Buffer.from(knownWrapped, "hex"));
      expect(Buffer.from(back).toString("hex")).toBe(knownData);
    });

    it.each([
      ["aes", "aes", "A256KW"],
      ["fitting", "aes", "A256KW"],
      ["aes", "unwrap-only", "A256KW"],
      ["rsa", "rsa", "RSA-OAEP-256"],
      ["rsa-public", "rsa", "RSA-OAEP-256"],
    ] as const)("what %s wrapped %s unwraps (%s), many at once", async (wrapper, unwrapper, algorithm) => {
      const all = Array.from({ length: 10 }, () => randomBytes(32));
      const wrapped = await Promise.all(all.map((bytes) => wrap(wrapper, algorithm, bytes)));
      const back = await Promise.all(wrapped.map((bytes) => unwrap(unwrapper, algorithm, bytes)));
      expect(back.map((bytes) => Buffer.from(bytes))).toEqual(all);
    });

    it.each([
      ["nobody", "A256KW", "failed to retrieve the key encryption key: key not found"],
      ["__proto__", "A256KW", "failed to retrieve the key encryption key: key not found"],
      ["rsa", "A256KW", "failed to encrypt data: key type mismatch"],
      ["aes", "RSA-OAEP-256", "failed to encrypt data: key type mismatch"],
      ["aes-short", "A256KW", "failed to encrypt data: key type mismatch"],
      ["aes", "A256CBC-NOPAD", "failed to encrypt data: unsupported algorithm"],
      ["signing", "A256KW", "key cannot perform the 'wrapKey' operation"],
      ["unwrap-only", "A256KW", "key cannot perform the 'wrapKey' operation"],
      ["for-rsa", "A256KW", "key cannot be used with algorithm 'A256KW'"],
    ] as const)("does not wrap with %s by %s", async (keyName, algorithm, message) => {
      await expect(wrap(keyName, algorithm, randomBytes(32))).rejects.toThrow(
        expect.objectContaining({ message }),
      );
    });

    it.each([
      ["aes-2", "A256KW", Buffer.from(knownWrapped, "hex")],
      ["aes", "A256KW", Buffer.from(`00${knownWrapped.slice(2)}`, "hex")],
      ["aes", "A256KW", Buffer.alloc(0)],
      ["aes", "A256KW", Buffer.alloc(7)],
      ["rsa", "RSA-OAEP-256", Buffer.alloc(256, 1)],
      ["rsa-public", "RSA-OAEP-256", Buffer.alloc(256, 1)],
      ["signing", "A256KW", Buffer.from(knownWrapped, "hex")],
    ] as const)("does not unwrap with %s by %s what it did not wrap", async (keyName, algorithm, bytes) => {
      await expect(unwrap(keyName, algorithm, bytes)).rejects.toThrow(/^(failed to decrypt data|key cannot)/);
    });
  });
}
