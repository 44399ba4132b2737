/**
 * Keys that crypto providers hold, however they are written (JSON Web Key, PEM, plain bytes), and the two things they
 * do: wrapping and unwrapping. Failures have the texts that Dapr clients know and tell nothing of a key's bytes.
 */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
} from "node:crypto";
import type { CryptoProvider, WrapAlgorithm, WrapRequest } from "../../blocks/crypto/port.ts";
import { textOf } from "../../lib/thrown.ts";

/** What a JSON Web Key says it may be used for; all of it is enforced. */
type Limits = {
  readonly use?: unknown;
  readonly operations?: unknown;
  readonly algorithm?: unknown;
};

export type Key = Limits &
  (
    | { readonly kind: "symmetric"; readonly bytes: Uint8Array }
    | { readonly kind: "pair"; readonly publicKey: KeyObject; readonly privateKey: KeyObject | undefined }
  );

export type JsonKey = Readonly<Record<string, unknown>>;

/** A file or a set of keys has none of this name. */
export const keyNotFound = (cause?: unknown): Error => new Error("key not found", { cause });

/** A provider of the keys that `find` gives; what `find` rejects with goes on in the words of the API. */
export function providerOf(find: (keyName: string) => Promise<Key>, close: () => void): CryptoProvider {
  const found = (keyName: string): Promise<Key> =>
    find(keyName).catch((cause: unknown) => {
      throw new Error(`failed to retrieve the key encryption key: ${textOf(cause)}`, { cause });
    });
  return {
    async wrapKey(request) {
      return wrapWith(await found(request.keyName), request);
    },
    async unwrapKey(request) {
      return unwrapWith(await found(request.keyName), request);
    },
    async close() {
      close();
    },
  };
}

/** Throws Error for a key that no algorithm here can use. */
export function keyOfJson(json: JsonKey): Key {
  const limits = { use: json["use"], operations: json["key_ops"], algorithm: json["alg"] };
  if (json["kty"] === "oct") {
    const { k } = json;
    if (typeof k !== "string") throw new Error('a JSON Web Key of kty "oct" needs a member "k"');
    return { kind: "symmetric", bytes: Buffer.from(k, "base64url"), ...limits };
  }
  const input = { key: json as JsonWebKey, format: "jwk" as const };
  const privateKey = typeof json["d"] === "string" ? createPrivateKey(input) : undefined;
  return { kind: "pair", publicKey: createPublicKey(input), privateKey, ...limits };
}

/** A key as it stands in a file: `fileName` and content say in which form. Throws Error. */
export function keyOfFile(fileName: string, content: Buffer): Key {
  const text = content.toString("latin1");
  const rawSizes = [16, 24, 32];
  if (fileName.endsWith(".json") || (text.startsWith("{") && !rawSizes.includes(content.length))) {
    const json: unknown = JSON.parse(content.toString());
    if (typeof json !== "object" || json === null) throw new Error("a JSON Web Key must be an object");
    return keyOfJson(json as JsonKey);
  }
  if (fileName.endsWith(".pem") || text.startsWith("-----")) return keyOfPem(content);
  return { kind: "symmetric", bytes: plainBytes(content, text) };
}

function keyOfPem(content: Buffer): Key {
  const isPrivate = /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(content.toString("latin1"));
  const privateKey = isPrivate ? createPrivateKey(content) : undefined;
  return { kind: "pair", publicKey: createPublicKey(content), privateKey };
}

/** Base64 of either alphabet, or else the bytes themselves. */
function plainBytes(content: Buffer, text: string): Uint8Array {
  const digits = text.replace(/[\n=]+$/, "").replace(/[\r\n]/g, "");
  const whole = digits.length % 4 !== 1;
  if (whole && /^[A-Za-z0-9+/]*$/.test(digits)) return Buffer.from(digits, "base64");
  if (whole && /^[A-Za-z0-9_-]*$/.test(digits)) return Buffer.from(digits, "base64url");
  return content;
}

/** Throws Error for a key that does not fit or must not do this. */
export function wrapWith(key: Key, { bytes, algorithm }: WrapRequest): Buffer {
  check(key, algorithm, "wrapKey");
  try {
    if (algorithm === "RSA-OAEP-256") return publicEncrypt({ key: rsa(key).publicKey, ...oaep }, bytes);
    const cipher = createCipheriv("id-aes256-wrap", symmetric(key, algorithm), aesWrapStart);
    return Buffer.concat([cipher.update(bytes), cipher.final()]);
  } catch (cause) {
    throw new Error(`failed to encrypt data: ${reasonOf(cause)}`, { cause });
  }
}

/** Throws Error, also for bytes that were not wrapped with this key. */
export function unwrapWith(key: Key, { bytes, algorithm }: WrapRequest): Buffer {
  check(key, algorithm, "unwrapKey");
  try {
    if (algorithm === "RSA-OAEP-256") {
      const { privateKey } = rsa(key);
      if (privateKey === undefined) throw new Misfit("key type mismatch");
      return privateDecrypt({ key: privateKey, ...oaep }, bytes);
    }
    // OpenSSL unwraps nothing to nothing.
    if (bytes.length < minWrappedBytes) throw new Error("too short");
    const decipher = createDecipheriv("id-aes256-wrap", symmetric(key, algorithm), aesWrapStart);
    return Buffer.concat([decipher.update(bytes), decipher.final()]);
  } catch (cause) {
    throw new Error(`failed to decrypt data: ${reasonOf(cause)}`, { cause });
  }
}

const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" } as const;
/** The initial value of RFC 3394. */
const aesWrapStart = Buffer.alloc(8, 0xa6);

/** Of RFC 3394. */
const minWrappedBytes = 24;

/** The key is not of the kind, or the algorithm not one that is done here; the message is for the client. */
class Misfit extends Error {}

function check(key: Key, algorithm: WrapAlgorithm, operation: "wrapKey" | "unwrapKey"): void {
  const { use, operations } = key;
  const unfit = use !== undefined && use !== "" && use !== "enc";
  if (unfit || (Array.isArray(operations) && operations.length > 0 && !operations.includes(operation)))
    throw new Error(`key cannot perform the '${operation}' operation`);
  if (key.algorithm !== undefined && key.algorithm !== "" && key.algorithm !== algorithm)
    throw new Error(`key cannot be used with algorithm '${algorithm}'`);
}

function rsa(key: Key): { readonly publicKey: KeyObject; readonly privateKey: KeyObject | undefined } {
  if (key.kind !== "pair" || key.publicKey.asymmetricKeyType !== "rsa") throw new Misfit("key type mismatch");
  return key;
}

function symmetric(key: Key, algorithm: WrapAlgorithm): Uint8Array {
  if (algorithm !== "A256KW") throw new Misfit("unsupported algorithm");
  if (key.kind !== "symmetric" || key.bytes.length !== 32) throw new Misfit("key type mismatch");
  return key.bytes;
}

/** What OpenSSL says is for the log. */
function reasonOf(cause: unknown): string {
  return cause instanceof Misfit ? cause.message : "the operation failed";
}
