/** Keys of a JSON Web Key Set: written in the component, in a file, or served by a web server. */
import { textWithCause } from "../../lib/thrown.ts";
import { readFile, stat } from "node:fs/promises";
import type { Clock } from "../../../mesh/index.ts";
import type { CryptoProvider } from "../../blocks/crypto/port.ts";
import { MetadataError, type ComponentContext, type MetadataSchema } from "../component.ts";
import { type JsonKey, type Key, keyNotFound, keyOfJson, providerOf } from "./keys.ts";

export const type = "crypto.dapr.jwks";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  jwks: {
    kind: "string",
    description: "The set itself (JSON, also in base64), the path of its file, or its http(s) address.",
    required: true,
    secret: true,
  },
  requestTimeout: {
    kind: "duration",
    description: "Longest wait for the web server.",
    default: "30s",
  },
  minRefreshInterval: {
    kind: "duration",
    description: "A set from a web server is fetched again when it is used and older than this.",
    default: "10m",
  },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;
/** By `kid`. */
type KeySet = ReadonlyMap<string, JsonKey>;

/** Gives the set as it is now; `wanted` is what it is asked for. */
type Source = { current(wanted: string): Promise<KeySet>; close(): void };

const maxSetBytes = 4 * 1024 * 1024;

/** Rejects with MetadataError when the set cannot be loaded. */
export async function open(context: Context): Promise<CryptoProvider> {
  const { jwks } = context.metadata;
  let source: Source;
  try {
    source = await openSource(jwks, context);
  } catch (cause) {
    throw new MetadataError("jwks", `metadata field "jwks": ${textWithCause(cause)}`, cause);
  }
  const find = async (keyName: string): Promise<Key> => {
    const json = (await source.current(keyName)).get(keyName);
    if (json === undefined) throw keyNotFound();
    return keyOfJson(json);
  };
  return providerOf(find, () => source.close());
}

async function openSource(jwks: string, context: Context): Promise<Source> {
  if (/^https?:\/\//i.test(jwks)) return openServed(jwks, context);
  const isFile = await stat(jwks).then(
    (found) => found.isFile(),
    () => false,
  );
  if (isFile) return openFile(jwks, context);
  const set = parseSet(jwks.trimStart().startsWith("{") ? jwks : Buffer.from(jwks, "base64").toString());
  return { current: () => Promise.resolve(set), close() {} };
}

/** Looks at each use whether the file is another one by now. */
async function openFile(path: string, { log }: Context): Promise<Source> {
  const read = async (): Promise<{ readonly version: string; readonly set: KeySet }> => {
    const { mtimeMs, size, ino } = await stat(path);
    if (size > maxSetBytes) throw new Error(`${path} has ${size} bytes, the most is ${maxSetBytes}`);
    return { version: `${mtimeMs} ${size} ${ino}`, set: parseSet(await readFile(path, "utf8")) };
  };
  let last = await read();
  return {
    async current() {
      try {
        const { mtimeMs, size, ino } = await stat(path);
        if (`${mtimeMs} ${size} ${ino}` !== last.version) last = await read();
      } catch (error) {
        log.warn(`${path} cannot be read now, the keys read before stay: ${textWithCause(error)}`);
      }
      return last.set;
    },
    close() {},
  };
}

/** Fetches again in the background; only who asks for an unknown key waits for it. */
async function openServed(address: string, context: Context): Promise<Source> {
  const { clock, log, metadata } = context;
  const ending = new AbortController();
  const fetchIt = (signal: AbortSignal): Promise<KeySet> =>
    fetchSet(address, metadata.requestTimeout, clock, signal);
  let set = await fetchIt(context.signal);
  let triedMs = clock.monotonicMs();
  let running: Promise<void> | undefined;
  const refresh = async (): Promise<void> => {
    try {
      set = await fetchIt(ending.signal);
    } catch (error) {
      log.warn(
        `the keys of ${address} cannot be fetched now, those fetched before stay: ${textWithCause(error)}`,
      );
    } finally {
      running = undefined;
    }
  };
  return {
    async current(wanted) {
      if (running === undefined && clock.monotonicMs() - triedMs >= metadata.minRefreshInterval) {
        triedMs = clock.monotonicMs();
        running = refresh();
      }
      if (!set.has(wanted)) await running;
      return set;
    },
    close: () => ending.abort(new Error("the sidecar stops")),
  };
}

async function fetchSet(
  address: string,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<KeySet> {
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  try {
    const answer = await fetch(address, { signal: AbortSignal.any([signal, late.signal]) });
    if (answer.status !== 200) throw new Error(`status ${answer.status}`);
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of answer.body ?? []) {
      size += part.length;
      if (size > maxSetBytes) throw new Error(`the answer is longer than ${maxSetBytes} bytes`);
      parts.push(part);
    }
    return parseSet(Buffer.concat(parts).toString());
  } catch (cause) {
    throw new Error(`the keys cannot be fetched from ${address}: ${textWithCause(cause)}`, { cause });
  } finally {
    timer.cancel();
  }
}

function parseSet(text: string): KeySet {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The engine's own text would quote from the keys.
    throw new Error("this is neither an http(s) address, a file that is there, nor JSON");
  }
  const keys = (value as { readonly keys?: unknown } | null)?.keys;
  if (!Array.isArray(keys)) throw new Error('a JSON Web Key Set must look like {"keys":[{"kid":"…",…}]}');
  const named = (keys as unknown[]).filter(
    (key): key is JsonKey & { readonly kid: string } =>
      typeof key === "object" && key !== null && typeof (key as JsonKey)["kid"] === "string",
  );
  return new Map(named.map((key) => [key.kid, key]));
}
