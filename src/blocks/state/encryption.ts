/**
 * Encryption at rest: what a store keeps is `base64(nonce || AES-GCM ciphertext || tag)||<name of the secret>`, as
 * Dapr writes and reads it. The sidecar encrypts with the primary key and decrypts with primary or secondary, by name.
 */
import {
  type CipherGCMTypes,
  type KeyObject,
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  randomBytes,
} from "node:crypto";
import { type ComponentResource, CreationError } from "../../config/kinds/component.ts";
import type { StateChange, StateRecord, StateSet, StateStore, StateWrite } from "./port.ts";

/** Algorithms by length of the key, bytes. */
const algorithms: Readonly<Record<number, CipherGCMTypes>> = {
  16: "aes-128-gcm",
  24: "aes-192-gcm",
  32: "aes-256-gcm",
};
const nonceBytes = 12;
const tagBytes = 16;
const separator = "||";
const quote = 0x22;
const primaryField = "primaryEncryptionKey";
const secondaryField = "secondaryEncryptionKey";

type NamedKey = { readonly name: string; readonly algorithm: CipherGCMTypes; readonly secret: KeyObject };
export type EncryptionKeys = { readonly primary: NamedKey; readonly secondary: NamedKey | undefined };

/**
 * The keys of a component; undefined when it asks for none. `texts` are its metadata after secrets. Throws
 * CreationError naming the fix whenever values could end in clear although the component names a key.
 */
export function encryptionKeys(
  { metadata }: Pick<ComponentResource, "metadata">,
  texts: Readonly<Record<string, string>>,
): EncryptionKeys | undefined {
  const fields = metadata.map((item) => item.name);
  const refuse = (field: string, text: string): never => {
    throw new CreationError(field, `metadata ${field}${text}`);
  };
  for (const wanted of [primaryField, secondaryField]) {
    const other = fields.find((field) => field !== wanted && field.toLowerCase() === wanted.toLowerCase());
    if (other !== undefined) refuse(other, ` must be written ${wanted}`);
  }
  const key = (field: string): NamedKey | undefined => {
    const item = metadata.find((candidate) => candidate.name === field);
    if (item === undefined) return undefined;
    if (item.secretKeyRef === undefined)
      return refuse(field, " must come by secretKeyRef: records name the secret that their key is in");
    const text = texts[field] ?? "";
    if (text === "")
      return refuse(
        field,
        `: secret ${item.secretKeyRef.name} gave no key; set auth.secretStore to a store that has it`,
      );
    const bytes = /^(?:[0-9a-f]{2})+$/i.test(text) ? Buffer.from(text, "hex") : Buffer.alloc(0);
    const algorithm = algorithms[bytes.length];
    if (algorithm === undefined) return refuse(field, " must be 16, 24 or 32 bytes in hex");
    return { name: item.secretKeyRef.name, algorithm, secret: createSecretKey(bytes) };
  };
  const primary = key(primaryField);
  const secondary = key(secondaryField);
  if (primary !== undefined) return { primary, secondary };
  return secondary === undefined ? undefined : refuse(secondaryField, ` needs ${primaryField} too`);
}

/** The record of a value. */
export function encrypt({ name, algorithm, secret }: NamedKey, value: Uint8Array): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv(algorithm, secret, nonce);
  const parts = [nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()];
  const text = Buffer.concat(parts, nonceBytes + value.length + tagBytes).toString("base64");
  const suffix = separator + name;
  const record = Buffer.allocUnsafe(text.length + Buffer.byteLength(suffix));
  record.write(text, 0, "latin1");
  record.write(suffix, text.length);
  return record;
}

/** The value of a record; an empty record is an empty value. Throws an Error in Dapr's words where it has some. */
export function decrypt(keys: EncryptionKeys, store: string, record: Uint8Array): Uint8Array {
  if (record.length === 0) return record;
  const text = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const at = text.lastIndexOf(separator);
  const fail = (why: string): never => {
    throw new Error(`could not decrypt data for state store ${store}: ${why}`);
  };
  if (at < 0) return fail("the record is not encrypted");
  const name = text.subarray(at + separator.length).toString();
  if (name === "") return fail("encryption key name not found on record");
  const { primary, secondary } = keys;
  const key = primary.name === name ? primary : secondary?.name === name ? secondary : undefined;
  if (key === undefined)
    return fail(`the record's key ${name.slice(0, 100)} is neither primary nor secondary key`);
  const sealed = Buffer.from(text.subarray(0, at).toString("latin1"), "base64");
  if (sealed.length < nonceBytes + tagBytes) return fail("the record is too short");
  const decipher = createDecipheriv(key.algorithm, key.secret, sealed.subarray(0, nonceBytes));
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const value = decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes));
  try {
    decipher.final();
  } catch {
    throw new Error("cipher: message authentication failed");
  }
  return value;
}

/** A string of an HTTP save is encrypted without its quotes, and so it is read, as Dapr does it. */
function plaintext({ value, json, metadata }: StateSet): Uint8Array {
  if (!json || value[0] !== quote || metadata["contentType"] === "application/json") return value;
  return Buffer.from(JSON.parse(Buffer.from(value).toString()) as string);
}

/** The store with values encrypted on their way in and decrypted on their way out. */
export function encryptedStore(port: StateStore, keys: EncryptionKeys, name: string): StateStore {
  const sealed = (write: StateSet): StateSet => ({
    ...write,
    value: encrypt(keys.primary, plaintext(write)),
    json: false,
  });
  const opened = (record: StateRecord | undefined): StateRecord | undefined =>
    record === undefined ? undefined : { ...record, value: decrypt(keys, name, record.value) };
  const openedOrError = (record: StateRecord | Error | undefined): StateRecord | Error | undefined => {
    if (record instanceof Error) return record;
    try {
      return opened(record);
    } catch (error) {
      return error as Error;
    }
  };
  const openedChange = (change: StateChange): StateChange =>
    change.kind === "put" ? { ...change, record: openedOrError(change.record)! } : change;
  const { getMany, setMany, deleteMany, transact, query, queryAsWritten, list, watch } = port;
  const { maxTransactionWrites, rules } = port;
  const refuse = () => Promise.reject(new Error("cannot query encrypted store"));
  return {
    ...(maxTransactionWrites === undefined ? {} : { maxTransactionWrites }),
    ...(rules === undefined ? {} : { rules }),
    // What Dapr decrypts to nothing is nothing to it.
    hidesEmpty: true,
    get: async (key, options) => opened(await port.get(key, options)),
    ...(getMany === undefined
      ? {}
      : { getMany: async (...args) => (await getMany.apply(port, args)).map(openedOrError) }),
    set: (write, signal) => port.set(sealed(write), signal),
    delete: (write, signal) => port.delete(write, signal),
    ...(transact === undefined
      ? {}
      : {
          transact: (writes: readonly StateWrite[], metadata, signal) => {
            const all = writes.map((write) => (write.kind === "set" ? sealed(write) : write));
            return transact.call(port, all, metadata, signal);
          },
        }),
    ...(setMany === undefined
      ? {}
      : { setMany: (writes, signal) => setMany.call(port, writes.map(sealed), signal) }),
    ...(deleteMany === undefined ? {} : { deleteMany: (...args) => deleteMany.apply(port, args) }),
    ...(query === undefined ? {} : { query: refuse }),
    ...(queryAsWritten === undefined ? {} : { queryAsWritten: refuse }),
    ...(list === undefined ? {} : { list: (...args) => list.apply(port, args) }),
    ...(watch === undefined
      ? {}
      : {
          watch: async (...args) => mapped(await watch.apply(port, args), openedChange),
        }),
    close: () => port.close(),
  };
}

async function* mapped<A, B>(all: AsyncIterable<A>, map: (one: A) => B): AsyncIterableIterator<B> {
  for await (const one of all) yield map(one);
}
