/**
 * The encryption lines of `npm run bench`: one large document through the sidecar over HTTP, beside what the same
 * cipher does in one thread of Node and what an upload and download of the same bytes takes without it.
 */
import { createCipheriv, generateKeyPairSync, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { startSidecar, tempDir } from "../kit/index.ts";
import type { Nats } from "../kit/index.ts";
import { cpuMs } from "./process-usage.ts";
import { startStreamApp } from "./stream-load.ts";

const documentBytes = 64 * 1024 * 1024;
const segmentBytes = 64 * 1024;

export type CryptoRow = {
  readonly name: string;
  /** MB (10^6 bytes) per second of plaintext. */
  readonly mbPerSecond: number;
  /** CPU of the sidecar per MB, ms; 0 where there is none. */
  readonly cpuMsPerMb: number;
};

/** The best of so many rounds of each, in turns. */
export async function measureCrypto(
  command: readonly [string, ...string[]],
  nats: Nats,
  rounds: number,
): Promise<CryptoRow[]> {
  await using stack = new AsyncDisposableStack();
  const keys = stack.use(tempDir("keys"));
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(keys.join("rsa.pem"), privateKey.export({ type: "pkcs8", format: "pem" }));
  const resources = {
    "vault.yaml":
      "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: vault }\n" +
      `spec: { type: crypto.dapr.localstorage, version: v1, metadata: [{ name: path, value: ${keys.path} }] }\n`,
  };
  const flags = ["--max-body-size=256Mi"];
  const sidecar = stack.use(await startSidecar({ appId: "vault", nats, resources, flags, command }));
  const echo = await startStreamApp();
  stack.defer(async () => void (await echo.close()));
  const plain = randomBytes(documentBytes);
  const url = `${sidecar.httpUrl}/v1.0-alpha1/crypto/vault`;
  const wrap = { "dapr-key-name": "rsa.pem", "dapr-key-wrap-algorithm": "RSA" };
  const chacha = { ...wrap, "dapr-data-encryption-cipher": "chacha20-poly1305" };
  const document = await put(`${url}/encrypt`, wrap, plain);
  const jobs: Record<string, () => unknown> = {
    "node:crypto AES-256-GCM, one thread": () => sealAlone("aes-256-gcm", plain),
    "node:crypto ChaCha20-Poly1305": () => sealAlone("chacha20-poly1305", plain),
    "bare HTTP up and down": () => put(`http://127.0.0.1:${echo.port}/echo`, {}, plain),
    "encrypt, AES-256-GCM": () => put(`${url}/encrypt`, wrap, plain),
    "encrypt, ChaCha20-Poly1305": () => put(`${url}/encrypt`, chacha, plain),
    "decrypt, AES-256-GCM": () => put(`${url}/decrypt`, {}, document),
  };
  const best = new Map<string, CryptoRow>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, job] of Object.entries(jobs)) {
      const cpuBefore = cpuMs(sidecar.pid);
      const startMs = performance.now();
      await job();
      const mbPerSecond = documentBytes / 1000 / (performance.now() - startMs);
      const cpuMsPerMb = (cpuMs(sidecar.pid) - cpuBefore) / (documentBytes / 1e6);
      if (mbPerSecond > (best.get(name)?.mbPerSecond ?? 0)) best.set(name, { name, mbPerSecond, cpuMsPerMb });
    }
  }
  return [...best.values()];
}

/** The cipher on segments as documents have them, and nothing else. */
function sealAlone(cipher: "aes-256-gcm" | "chacha20-poly1305", plain: Buffer): void {
  const key = randomBytes(32);
  for (let at = 0; at < plain.length; at += segmentBytes) {
    const sealing = createCipheriv(cipher as "aes-256-gcm", key, randomBytes(12), { authTagLength: 16 });
    sealing.update(plain.subarray(at, at + segmentBytes));
    sealing.final();
    sealing.getAuthTag();
  }
}

/** The whole answer; rejects for any status but 200. */
function put(url: string, headers: Readonly<Record<string, string>>, body: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method: "PUT", headers: { ...headers, "content-length": body.length } });
    outgoing.once("error", reject);
    outgoing.once("response", (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.once("error", reject);
      incoming.once("end", () => {
        if (incoming.statusCode === 200) resolve(Buffer.concat(chunks));
        else reject(new Error(`${url}: ${incoming.statusCode} ${Buffer.concat(chunks).toString()}`));
      });
    });
    outgoing.end(body);
  });
}

export function printCrypto(rows: readonly CryptoRow[]): void {
  console.log(`\nencryption of one document of ${documentBytes / 1024 / 1024} MiB`);
  for (const { name, mbPerSecond, cpuMsPerMb } of rows) {
    const cpu = cpuMsPerMb === 0 ? "" : `  ${cpuMsPerMb.toFixed(2)} ms of sidecar CPU a MB`;
    console.log(`${name.padEnd(36)} ${mbPerSecond.toFixed(0).padStart(5)} MB/s${cpu}`);
  }
}
