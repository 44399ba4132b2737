import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { type ManualClock, manualClock } from "../../../test/contract/manual-clock.ts";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { tempDir } from "../../../test/kit/temp-dir.ts";
import type { CryptoProvider } from "../../blocks/crypto/port.ts";
import { readMetadata } from "../metadata.ts";
import { metadataSchema, open } from "./jwks.ts";

const signal = new AbortController().signal;
const key = (kid: string): object => ({ kid, kty: "oct", k: Buffer.alloc(32, kid).toString("base64url") });
const setOf = (...kids: string[]): string => JSON.stringify({ keys: kids.map(key) });

function openWith(jwks: string, clock: ManualClock = manualClock()): Promise<CryptoProvider> {
  const properties = { jwks, requestTimeout: "5s", minRefreshInterval: "1m" };
  const { values } = readMetadata(metadataSchema, "crypto", properties);
  const rest = { mesh: undefined as never, clock, log: silentLog, env: {}, signal };
  const who = { name: "c", type: "t", version: "v1", appId: "a", namespace: "n" };
  return open({ ...who, ...rest, metadata: values, properties });
}

/** Whether the key is there. */
async function has(provider: CryptoProvider, keyName: string): Promise<boolean> {
  const request = { bytes: Buffer.alloc(32), keyName, algorithm: "A256KW" } as const;
  return provider.wrapKey(request, signal).then(
    () => true,
    () => false,
  );
}

it("sees that its file has changed, and keeps the keys when it becomes unreadable", async () => {
  await using folder = tempDir("jwks");
  const path = folder.join("set.json");
  await writeFile(path, setOf("a"));
  const provider = await openWith(path);
  expect([await has(provider, "a"), await has(provider, "bb")]).toEqual([true, false]);
  await writeFile(path, setOf("bb"));
  expect([await has(provider, "a"), await has(provider, "bb")]).toEqual([false, true]);
  await writeFile(path, "{");
  expect(await has(provider, "bb")).toBe(true);
});

it("fetches again when the interval has passed, and keeps the keys when that fails", async () => {
  let body = setOf("a");
  let requests = 0;
  const server = createServer((_request, response) => {
    requests += 1;
    response.statusCode = body === "" ? 500 : 200;
    response.end(body);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const clock = manualClock();
  const provider = await openWith(`http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`, clock);
  try {
    body = setOf("a", "b");
    expect([await has(provider, "b"), requests]).toEqual([false, 1]);
    clock.advance(60_000);
    expect([await has(provider, "b"), requests]).toEqual([true, 2]);
    body = "";
    clock.advance(60_000);
    expect([await has(provider, "c"), await has(provider, "b"), requests]).toEqual([false, true, 3]);
  } finally {
    await provider.close();
    server.close();
  }
});

it.each([
  ["nothing", /neither an http\(s\) address, a file that is there, nor JSON/],
  ["[]", /neither/],
  ['{"a":1}', /must look like \{"keys"/],
  ["http://127.0.0.1:1/keys", /cannot be fetched from http:\/\/127\.0\.0\.1:1\/keys/],
])("does not open with %s", async (jwks, message) => {
  await expect(openWith(jwks)).rejects.toThrow(message);
});
