/**
 * Secrets of HashiCorp Vault: of a key/value engine of version 2. Vault is not asked before the first secret is, so
 * the sidecar starts without it; a token file and certificates may be exchanged while it runs. Request metadata
 * `version_id` asks for a version other than the last one.
 * No Vault can be installed where this is tested: its documented HTTP API stands in for it, in
 * test/kit/servers/vault.py.
 */
import type { Secret, SecretStore } from "../../blocks/secrets/port.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { goJson, parseJsonKeepNumbers } from "../../lib/go-json.ts";
import { MetadataError, type ComponentContext, type MetadataSchema } from "../component.ts";
import { type JsonAnswer, type JsonApi, openJsonApi, type TlsChoice } from "../connect/json-api.ts";
import { tlsOf, tokenSource } from "./vault-credentials.ts";

export const type = "secretstores.hashicorp.vault";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  vaultAddr: { kind: "string", description: "Address of Vault.", default: "https://127.0.0.1:8200" },
  vaultToken: { kind: "string", description: "The token; this or vaultTokenMountPath.", secret: true },
  vaultTokenMountPath: {
    kind: "string",
    description: "File that holds the token, read at each use; this or vaultToken.",
  },
  enginePath: { kind: "string", description: "Where the engine is mounted.", default: "secret" },
  vaultKVPrefix: {
    kind: "string",
    description: "Stands before the name of every secret, with a slash.",
    default: "dapr",
  },
  vaultKVUsePrefix: { kind: "boolean", description: "False: no prefix.", default: "true" },
  vaultValueType: {
    kind: "string",
    description: "`map`: the fields of a secret, which must be texts; `text`: all of it as one JSON text.",
    default: "map",
    oneOf: ["map", "text"],
  },
  caPem: { kind: "string", description: "Authorities to trust, PEM text." },
  caPath: { kind: "string", description: "Folder whose first file holds them; without caPem." },
  caCert: { kind: "string", description: "File that holds them; without caPem and caPath." },
  skipVerify: { kind: "boolean", description: "True: Vault's certificate is not checked.", default: "false" },
  tlsServerName: { kind: "string", description: "Name that Vault's certificate is for." },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;
type Settings = Context["metadata"];

/** Requests of one bulk call that run at once. */
const maxParallel = 16;
/** Folders inside each other, and names of one bulk call. */
const maxDepth = 100;
const maxNames = 100_000;

const remedies = {
  unreachable: "see whether Vault runs there, or correct vaultAddr",
  untrusted: "give the authority of Vault's certificate in caPem, caPath or caCert",
  otherName: "give the name that Vault's certificate is for in tlsServerName",
};

/** Rejects with MetadataError when the metadata, the token file or the certificates are of no use. */
export async function open({ metadata, clock, log }: Context): Promise<SecretStore> {
  const token = tokenSource(metadata);
  const tls = (): Promise<TlsChoice> => tlsOf(metadata);
  await token();
  await tls();
  if (metadata.skipVerify) log.warn("Vault's certificate is not checked, as skipVerify says");
  const base = `${readAddress(metadata.vaultAddr)}/v1/`;
  const probeUrl = `${base}sys/health`;
  const what = `Vault at ${metadata.vaultAddr}`;
  const api = await openJsonApi({ tls, remedies, what, probeUrl, clock, log });
  return new Vault(metadata, base, token, api);
}

class Vault implements SecretStore {
  readonly capabilities: readonly string[];
  readonly #base: string;
  readonly #engine: string;
  readonly #prefix: string;
  readonly #isText: boolean;
  readonly #token: () => Promise<string>;
  readonly #api: JsonApi;

  constructor(metadata: Settings, base: string, token: () => Promise<string>, api: JsonApi) {
    this.#base = base;
    this.#engine = metadata.enginePath.replace(/^\/+|\/+$/g, "");
    this.#prefix = metadata.vaultKVUsePrefix ? metadata.vaultKVPrefix.replace(/^\/+|\/+$/g, "") : "";
    this.#isText = metadata.vaultValueType === "text";
    this.capabilities = this.#isText ? [] : ["MULTIPLE_KEY_VALUES_PER_SECRET"];
    this.#token = token;
    this.#api = api;
  }

  async get(name: string, metadata: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Secret> {
    const secret = await this.#read(name, versionOf(metadata), signal);
    if (typeof secret === "object") return secret;
    throw new Error(`getSecret ${name} failed secret key or version not exist${secret}`);
  }

  async getAll(
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, Secret>>> {
    const version = versionOf(metadata);
    const found: [string, Secret][] = [];
    await eachAtMost(await this.#names(signal), maxParallel, async (name) => {
      const secret = await this.#read(name, version, signal);
      if (typeof secret === "object") found.push([name, secret]);
    });
    return Object.fromEntries(found);
  }

  awaySinceMs(): number | undefined {
    return this.#api.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#api.close();
  }

  /** For one that is not there, what else is known about it: a text to follow that sentence. */
  async #read(name: string, version: string, signal: AbortSignal): Promise<Secret | string> {
    // What is no name of a secret must not lead to another part of the API.
    if (name.split("/").some((part) => part === "" || part === "." || part === "..")) return "";
    const path = this.#path("data", name);
    const answer = await this.#call("GET", `${encodePath(path)}?version=${version}`, signal);
    if (answer.status === 404) {
      const [error = ""] = errorsOf(answer);
      return error.includes("no handler for route")
        ? `: Vault has no engine at ${this.#engine}; correct enginePath`
        : "";
    }
    if (answer.status !== 200) throw refusal(answer, "read", path);
    return this.#isText ? { [name]: dataText(answer, this.#engine) } : dataFields(answer, name, this.#engine);
  }

  /** Names of all secrets below the prefix, without it. */
  async #names(signal: AbortSignal): Promise<string[]> {
    const names: string[] = [];
    let folders = [""];
    for (let depth = 0; folders.length > 0; depth += 1) {
      if (depth > maxDepth) throw new Error(`the secrets are nested deeper than ${maxDepth} folders`);
      const below: string[] = [];
      await eachAtMost(folders, maxParallel, async (folder) => {
        for (const key of await this.#list(folder, signal))
          (key.endsWith("/") ? below : names).push(folder + key);
      });
      if (names.length + below.length > maxNames)
        throw new Error(`there are more than ${maxNames} secrets; choose a vaultKVPrefix with fewer`);
      folders = below;
    }
    return names;
  }

  async #list(folder: string, signal: AbortSignal): Promise<readonly string[]> {
    const path = this.#path("metadata", folder);
    const answer = await this.#call("LIST", encodePath(path), signal);
    if (answer.status === 404) return [];
    if (answer.status !== 200) throw refusal(answer, "list", path);
    const { data } = parsed(answer) as { readonly data?: { readonly keys?: unknown } };
    return Array.isArray(data?.keys) ? data.keys.filter((key) => typeof key === "string") : [];
  }

  #path(part: "data" | "metadata", name: string): string {
    return [this.#engine, part, ...(this.#prefix === "" ? [] : [this.#prefix]), name].join("/");
  }

  /** A node that stands by may name the active one: that one is asked once. */
  async #call(method: "GET" | "LIST", path: string, signal: AbortSignal): Promise<JsonAnswer> {
    const headers = { "X-Vault-Token": await this.#token(), "X-Vault-Request": "true" };
    const url = this.#base + path;
    const answer = await this.#api.request({ url, method, headers, signal });
    if (answer.status !== 307 || answer.location === undefined) return answer;
    const active = new URL(answer.location, url);
    if (active.protocol !== "https:" && active.protocol !== new URL(url).protocol)
      throw new Error(`Vault names ${active.origin}, to which the token must not go; correct its api_addr`);
    return this.#api.request({ url: active.href, method, headers, signal });
  }
}

function readAddress(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol)) return text.replace(/\/+$/, "");
  throw new MetadataError(
    "vaultAddr",
    `metadata field "vaultAddr": "${text}" is no http:// or https:// address`,
  );
}

/** The last version, unless another one is asked for. */
function versionOf({ version_id: version = "0" }: Readonly<Record<string, string>>): string {
  if (/^\d{1,15}$/.test(version)) return version;
  throw new Error(`metadata version_id must be the number of a version, not "${version}"`);
}

function encodePath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}

function refusal(answer: JsonAnswer, capability: "read" | "list", path: string): Error {
  const { status } = answer;
  const said = errorsOf(answer).join(", ").replaceAll(/\s+/g, " ").trim().slice(0, 300);
  if (status === 403)
    return new Error(
      `Vault refuses it (403, ${said}): its token must be valid, with a policy that may ${capability} ${path}`,
    );
  if (status === 503 && /sealed/i.test(said)) return new Error(`${said} (503): unseal it`);
  return new Error(`Vault answers ${status}${said === "" ? "" : `: ${said}`}`);
}

/** What Vault says in an answer that is no success. */
function errorsOf(answer: JsonAnswer): readonly string[] {
  try {
    const { errors } = JSON.parse(answer.text) as { readonly errors?: unknown };
    return Array.isArray(errors) ? errors.map(String) : [];
  } catch {
    return [];
  }
}

function parsed(answer: JsonAnswer, parse: (text: string) => unknown = JSON.parse): object {
  try {
    return Object(parse(answer.text)) as object;
  } catch {
    // The engine's own message would quote from the secret.
    throw new Error("what answers is no Vault: it sends no JSON; correct vaultAddr");
  }
}

function dataOf(body: object, engine: string): object {
  const data = (body as { readonly data?: { readonly data?: unknown } | null }).data?.data;
  if (typeof data === "object" && data !== null && !Array.isArray(data)) return data;
  throw new Error(`Vault's answer has no data; ${engine} must be a key/value engine of version 2`);
}

/** As Vault wrote it: both write sorted members and keep the text of numbers. */
function dataText(answer: JsonAnswer, engine: string): string {
  return goJson(dataOf(parsed(answer, parseJsonKeepNumbers), engine));
}

function dataFields(answer: JsonAnswer, name: string, engine: string): Secret {
  const fields = Object.entries(dataOf(parsed(answer), engine)).map(([field, value]) => {
    if (typeof value === "string" || value === null) return [field, value ?? ""] as const;
    const kind = Array.isArray(value) ? "a list" : `of type ${typeof value}`;
    throw new Error(
      `field ${field} of secret ${name} is ${kind}, no text; write it as text, or set vaultValueType to text`,
    );
  });
  return Object.fromEntries(fields);
}
