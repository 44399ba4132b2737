// Documents go from Dapr's own library (Go) to the sidecar and back, and through the unmodified JavaScript SDK.
import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { CommunicationProtocolEnum, DaprClient } from "@dapr/dapr";
import { afterAll, beforeAll, expect, test } from "vitest";
import { component } from "../integration/secrets/resources.ts";
import { type Sidecar, startNats, startSidecar, tempDir } from "../kit/index.ts";
import { type BuiltProgram, goProgram } from "../kit/toolchains.ts";

const stack = new AsyncDisposableStack();
const plain = randomBytes(200_000);
let program: BuiltProgram;
let keyFile: string;
let sidecar: Sidecar;

beforeAll(async () => {
  program = await goProgram("go-crypto");
  const folder = stack.use(tempDir("keys"));
  keyFile = folder.join("rsa.pem");
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(keyFile, privateKey.export({ type: "pkcs8", format: "pem" }));
  const nats = stack.use(await startNats());
  const files = component("files", "crypto.dapr.localstorage", { path: folder.path });
  sidecar = stack.use(await startSidecar({ appId: "vault", nats, resources: { "files.yaml": files } }));
}, 400_000);
afterAll(() => stack.disposeAsync());

/** What Dapr's library makes of the bytes. */
async function library(command: "encrypt" | "decrypt", bytes: Buffer, cipher = "AES-GCM"): Promise<Buffer> {
  const [path, ...first] = program;
  const running = spawn(path, [...first, command, keyFile, cipher], { stdio: ["pipe", "pipe", "inherit"] });
  running.stdin.end(bytes);
  return buffer(running.stdout);
}

test.each(["AES-GCM", "CHACHA20-POLY1305"])("%s between Dapr's library and the sidecar", async (cipher) => {
  const put = async (path: string, body: Buffer): Promise<Buffer> => {
    const headers = {
      "dapr-key-name": "rsa.pem",
      "dapr-key-wrap-algorithm": "RSA",
      "dapr-data-encryption-cipher": cipher,
    };
    const answer = await sidecar.http(`/v1.0-alpha1/crypto/files/${path}`, { method: "PUT", body, headers });
    expect(answer.status).toBe(200);
    return answer.bytes;
  };
  expect((await put("decrypt", await library("encrypt", plain, cipher))).equals(plain)).toBe(true);
  expect((await library("decrypt", await put("encrypt", plain))).equals(plain)).toBe(true);
});

test("the JavaScript SDK", async () => {
  const client = new DaprClient({
    daprHost: "127.0.0.1",
    daprPort: String(sidecar.grpcPort),
    communicationProtocol: CommunicationProtocolEnum.GRPC,
  });
  try {
    const options = { componentName: "files", keyName: "rsa.pem", keyWrapAlgorithm: "RSA" } as const;
    const document = await client.crypto.encrypt(plain, options);
    expect((await library("decrypt", document)).equals(plain)).toBe(true);
    expect((await client.crypto.decrypt(document, { componentName: "files" })).equals(plain)).toBe(true);
  } finally {
    await client.stop();
  }
});
