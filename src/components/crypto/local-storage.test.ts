import { createDecipheriv, generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { tempDir } from "../../../test/kit/temp-dir.ts";
import type { CryptoProvider, WrapAlgorithm } from "../../blocks/crypto/port.ts";
import { metadataSchema, open } from "./local-storage.ts";
import { readMetadata } from "../metadata.ts";

const signal = new AbortController().signal;
const folder = tempDir("keys");
afterAll(() => folder[Symbol.asyncDispose]());

function openAt(path: string): Promise<CryptoProvider> {
  const properties = { path };
  const { values } = readMetadata(metadataSchema, "crypto", properties);
  const rest = { mesh: undefined as never, clock: undefined as never, log: silentLog, env: {}, signal };
  return open({
    name: "c",
    type: "t",
    version: "v1",
    appId: "a",
    namespace: "n",
    ...rest,
    metadata: values,
    properties,
  });
}

describe("crypto.dapr.localstorage", () => {
  let provider: CryptoProvider;
  const wrap = (keyName: string, algorithm: WrapAlgorithm = "A256KW"): Promise<Uint8Array> =>
    provider.wrapKey({ bytes: Buffer.alloc(32, 1), keyName, algorithm }, signal);
  // Each begins with bytes that take both letters that differ between the alphabets.
  const bytes = Buffer.concat([Buffer.from("fbefbeff", "hex"), randomBytes(28)]);
  const text = "*our own key of thirty-two bytes";

  beforeAll(async () => {
    await mkdir(folder.join("keys/deep"), { recursive: true });
    provider = await openAt(folder.join("keys"));
    await writeFile(folder.join("outside"), bytes);
  });

  it.each([
    ["base64", `${bytes.toString("base64")}\n`, bytes],
    ["base64 without =", bytes.toString("base64").replace(/=+$/, ""), bytes],
    ["base64url", `${bytes.toString("base64url")}\n\n`, bytes],
    ["plain bytes", text, Buffer.from(text)],
    ["JWK by name.json", `\n{"kty":"oct","k":"${bytes.toString("base64url")}"}`, bytes],
    ["JWK", `{"kty":"oct","k":"${bytes.toString("base64url")}"}`, bytes],
  ])("reads %s", async (name, content, key) => {
    const keyName = name.replaceAll(/ by name|[ =]/g, "-");
    const file = name.includes(".json") ? `${keyName}.json` : keyName;
    await writeFile(folder.join(`keys/deep/${file}`), content);
    const wrapped = await wrap(`/deep/${file}`);
    const decipher = createDecipheriv("id-aes256-wrap", key, Buffer.alloc(8, 0xa6));
    expect(Buffer.concat([decipher.update(wrapped), decipher.final()])).toEqual(Buffer.alloc(32, 1));
  });

  it.each(["spki", "pkcs1", "pkcs8"] as const)("reads PEM (%s)", async (form) => {
    const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const pem =
      form === "pkcs8"
        ? privateKey.export({ type: form, format: "pem" })
        : publicKey.export({ type: form, format: "pem" });
    await writeFile(folder.join("keys/rsa"), pem);
    const wrapped = await wrap("rsa", "RSA-OAEP-256");
    await writeFile(folder.join("keys/rsa"), privateKey.export({ type: "pkcs1", format: "pem" }));
    const request = { bytes: wrapped, keyName: "rsa", algorithm: "RSA-OAEP-256" } as const;
    expect(Buffer.from(await provider.unwrapKey(request, signal))).toEqual(Buffer.alloc(32, 1));
  });

  it.each([
    ["../outside", /invalid key name/],
    ["deep/../../outside", /invalid key name/],
    ["deep", /key not found$/],
    ["", /key not found$/],
    ["a\0b", /invalid key name/],
  ])("gives no key called %j", async (keyName, message) => {
    await expect(wrap(keyName)).rejects.toThrow(message);
  });

  it("tells nothing of a file that it cannot read", async () => {
    await writeFile(folder.join("keys/broken.json"), '{"k":"c2VjcmV0"');
    await expect(wrap("broken.json")).rejects.toThrow(
      /^failed to retrieve the key encryption key: the file holds no key that can be read$/,
    );
  });

  it("needs its folder", async () => {
    await expect(openAt(folder.join("nowhere"))).rejects.toThrow(/nowhere cannot be read: ENOENT/);
    await expect(openAt(folder.join("outside"))).rejects.toThrow(/outside is no folder/);
  });
});
