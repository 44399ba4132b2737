/** Keys in the files of a folder, each read when it is used: a key that was replaced there is used at once. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { CryptoProvider } from "../../blocks/crypto/port.ts";
import { MetadataError, type ComponentContext, type MetadataSchema } from "../component.ts";
import { type Key, keyNotFound, keyOfFile, providerOf } from "./keys.ts";

export const type = "crypto.dapr.localstorage";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  path: {
    kind: "string",
    description: "Folder of the key files; the name of a key is the path of its file from there.",
    required: true,
  },
} as const satisfies MetadataSchema;

/** A longer file is no key. */
const maxKeyBytes = 64 * 1024;

/** Rejects with MetadataError when there is no such folder. */
export async function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<CryptoProvider> {
  const { path } = metadata;
  const found = await stat(path).catch((cause: unknown) => {
    throw wrongPath(`${path} cannot be read: ${(cause as Error).message}`, cause);
  });
  if (!found.isDirectory()) throw wrongPath(`${path} is no folder; give the folder that holds the key files`);
  return providerOf(
    (keyName) => readKey(path, keyName),
    () => {},
  );
}

async function readKey(folder: string, keyName: string): Promise<Key> {
  if (keyName.split("/").includes("..") || keyName.includes("\0"))
    throw new Error("invalid key name: it must not lead out of the folder");
  const path = join(folder, keyName);
  let content: Buffer;
  try {
    const found = await stat(path);
    if (!found.isFile() || found.size > maxKeyBytes) throw new Error(`${path} is no file of a key`);
    content = await readFile(path);
  } catch (cause) {
    throw keyNotFound(cause);
  }
  try {
    return keyOfFile(path, content);
  } catch (cause) {
    throw new Error("the file holds no key that can be read", { cause });
  }
}

function wrongPath(fault: string, cause?: unknown): MetadataError {
  return new MetadataError("path", `metadata field "path": ${fault}`, cause);
}
