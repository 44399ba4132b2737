/**
 * Secrets of a JSON file, read once when the component opens. For development: the file is as secret as its folder.
 */
import { readFile, stat } from "node:fs/promises";
import type { Secret, SecretStore } from "../../blocks/secrets/port.ts";
import { goTextVerb } from "../../lib/go-format.ts";
import { unmarshalJson } from "../../lib/go-json.ts";
import { MetadataError, type ComponentContext, type MetadataSchema } from "../component.ts";

export const type = "secretstores.local.file";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  secretsFile: {
    kind: "string",
    description: "Path of the JSON file, from the folder in which the sidecar runs.",
    required: true,
  },
  nestedSeparator: {
    kind: "string",
    description: "Joins the names on the way to a nested value.",
    default: ":",
  },
  multiValued: {
    kind: "boolean",
    description: "Each member of the file is one secret, and the values in it are its fields.",
    default: "false",
  },
} as const satisfies MetadataSchema;

/** A longer file is no list of secrets. */
const maxFileBytes = 16 * 1024 * 1024;
/** Nesting of objects and lists in the file. */
const maxDepth = 100;

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
type Secrets = ReadonlyMap<string, Secret>;

/** Rejects with an Error that names the file when it cannot be read or is no JSON object. */
export async function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<SecretStore> {
  const { secretsFile, nestedSeparator: separator, multiValued } = metadata;
  const file = await readObject(secretsFile);
  return new LocalFile(multiValued ? readMany(file, separator) : readFlat(file, separator), multiValued);
}

class LocalFile implements SecretStore {
  readonly capabilities: readonly string[];
  readonly #secrets: Secrets;

  constructor(secrets: Secrets, multiValued: boolean) {
    this.#secrets = secrets;
    this.capabilities = multiValued ? ["MULTIPLE_KEY_VALUES_PER_SECRET"] : [];
  }

  async get(name: string): Promise<Secret> {
    const secret = this.#secrets.get(name);
    if (secret === undefined) throw new Error(`secret ${name} not found`);
    return secret;
  }

  async getAll(): Promise<Readonly<Record<string, Secret>>> {
    return Object.fromEntries(this.#secrets);
  }

  async close(): Promise<void> {}
}

async function readObject(path: string): Promise<{ readonly [name: string]: Json }> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) throw new Error(`it has ${size} bytes, the most is ${maxFileBytes}`);
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw wrongFile(`${path} cannot be read: ${(cause as Error).message}`, cause);
  }
  let value: Json;
  try {
    value = unmarshalJson(text.replace(/^\uFEFF/, "")) as Json;
  } catch (cause) {
    throw wrongFile(`${path} is no JSON: ${(cause as Error).message}`, cause);
  }
  if (isObject(value)) return value;
  throw wrongFile(`${path} must hold one JSON object such as {"name":"value"}`);
}

/** Every value at the end of a path is a secret under that path. */
function readFlat(file: { readonly [name: string]: Json }, separator: string): Secrets {
  const secrets = new Map<string, Secret>();
  for (const [path, text] of leavesOf(file, separator)) secrets.set(path, { [path]: text });
  return secrets;
}

/** Only texts and objects are secrets; what else stands at the top is passed over. */
function readMany(file: { readonly [name: string]: Json }, separator: string): Secrets {
  const secrets = new Map<string, Secret>();
  for (const [name, value] of Object.entries(file)) {
    if (typeof value === "string") secrets.set(name, { [name]: value });
    else if (isObject(value)) secrets.set(name, Object.fromEntries(leavesOf(value, separator)));
  }
  return secrets;
}

function leavesOf(object: { readonly [name: string]: Json }, separator: string): [string, string][] {
  const leaves: [string, string][] = [];
  const visit = (value: Json, path: string, depth: number): void => {
    if (depth > maxDepth) throw wrongFile(`the file is nested deeper than ${maxDepth} levels`);
    if (value === null || typeof value !== "object") {
      leaves.push([path, goTextVerb(value)]);
      return;
    }
    const before = path === "" ? "" : path + separator;
    for (const [name, member] of Object.entries(value)) visit(member, before + name, depth + 1);
  };
  visit(object, "", 0);
  return leaves;
}

function wrongFile(fault: string, cause?: unknown): MetadataError {
  return new MetadataError("secretsFile", `metadata field "secretsFile": ${fault}`, cause);
}

function isObject(value: Json): value is { readonly [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
