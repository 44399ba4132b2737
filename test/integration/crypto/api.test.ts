// The cryptography API over HTTP and gRPC through a real sidecar: documents of all sizes, tampering, every error.
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  type GrpcClient,
  GrpcError,
  grpcClient,
  type HttpReply,
  type Nats,
  type Sidecar,
  startNats,
  startSidecar,
  type TempDir,
  tempDir,
} from "../../kit/index.ts";
import { rawHttp } from "../../kit/raw-http.ts";
import { component } from "../secrets/resources.ts";

const { method } = Dapr;
const segment = 64 * 1024;
const maxBody = 2 * 1024 * 1024;

let nats: Nats;
let folder: TempDir;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  nats = await startNats();
  folder = tempDir("keys");
  writeFileSync(folder.join("aes"), `${randomBytes(32).toString("base64")}\n`);
  writeFileSync(folder.join("other"), randomBytes(32).toString("base64"));
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(folder.join("rsa.pem"), privateKey.export({ type: "pkcs8", format: "pem" }));
  const jwk = { kid: "set/key", kty: "oct", k: randomBytes(32).toString("base64url") };
  sidecar = await startSidecar({
    appId: "vault",
    nats,
    flags: ["--max-body-size", "2Mi"],
    resources: {
      "files.yaml": component("files", "crypto.dapr.localstorage", { path: folder.path }),
      "set.yaml": component("set", "crypto.dapr.jwks", { jwks: JSON.stringify({ keys: [jwk] }) }),
    },
  });
  grpc = grpcClient(sidecar.grpcPort);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

const aes = { "dapr-key-name": "aes", "dapr-key-wrap-algorithm": "AES" };

function put(path: string, body: Uint8Array, headers: Record<string, string> = {}): Promise<HttpReply> {
  return sidecar.http(`/v1.0-alpha1/crypto/${path}`, { method: "PUT", body, headers });
}

type Encrypting = { component?: string; keyName?: string; keyWrapAlgorithm?: string };

/** Opens a stream with options but without data. */
function encrypting({
  component: componentName = "files",
  keyName = "aes",
  keyWrapAlgorithm = "A256KW",
}: Encrypting) {
  const stream = grpc.stream(method.encryptAlpha1);
  stream.send({ options: { componentName, keyName, keyWrapAlgorithm } });
  return stream;
}

type Replies = { next(): Promise<{ payload?: { data: Uint8Array; seq: bigint } | undefined } | undefined> };

async function read(stream: Replies): Promise<Buffer[]> {
  const all: Buffer[] = [];
  for (let reply = await stream.next(); reply !== undefined; reply = await stream.next()) {
    expect(reply.payload!.seq).toBe(BigInt(all.length));
    all.push(Buffer.from(reply.payload!.data));
  }
  return all;
}

function decryptStream(document: Buffer, size = 50_000) {
  const stream = grpc.stream(method.decryptAlpha1);
  stream.send({ options: { componentName: "files" } });
  for (let at = 0, seq = 0n; at < document.length; at += size, seq += 1n)
    stream.send({ payload: { data: document.subarray(at, at + size), seq } });
  stream.end();
  return stream;
}

async function failure(call: Promise<unknown>): Promise<GrpcError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(GrpcError);
  return error as GrpcError;
}

test.each([
  ["files", "aes", "a256kw", "", 0],
  ["files", "aes", "AES", "chacha20-poly1305", 100_000],
  ["files", "/rsa.pem", "RSA", "AES-GCM", segment],
  ["set", "set/key", "AES", "", 1_000_000],
])(
  "%s: a document by %s (%s, cipher %j) of %i bytes, over HTTP and back",
  async (name, key, algorithm, cipher, size) => {
    const plain = randomBytes(size);
    const sealed = await put(`${name}/encrypt`, plain, {
      "dapr-key-name": key,
      "dapr-key-wrap-algorithm": algorithm,
      "dapr-data-encryption-cipher": cipher,
    });
    expect([sealed.status, sealed.headers["content-type"]]).toEqual([200, "application/octet-stream"]);
    expect(sealed.bytes.toString("latin1").split("\n").slice(0, 2)).toEqual([
      "dapr.io/enc/v1",
      expect.stringContaining(`{"k":"${key}","kw":${algorithm === "RSA" ? 5 : 1},"wfk":"`),
    ]);
    const opened = await put(`${name}/decrypt`, sealed.bytes);
    expect([opened.status, opened.headers["content-type"]]).toEqual([200, "application/octet-stream"]);
    expect(opened.bytes.equals(plain)).toBe(true);
  },
);

test("a document goes through gRPC while it is made, and back over both protocols", async () => {
  const plain = randomBytes(3 * segment + 10);
  const stream = encrypting({});
  stream.send({ payload: { data: plain.subarray(0, 2 * segment + 1), seq: 0n } });
  const replies = [await stream.next(), await stream.next(), await stream.next()];
  stream.send({ payload: { data: plain.subarray(2 * segment + 1), seq: 1n } });
  stream.end();
  const first = replies.map((reply) => Buffer.from(reply!.payload!.data));
  expect(first.slice(1).map(({ length }) => length)).toEqual([segment + 16, segment + 16]);
  expect(first[0]!.toString("latin1").split("\n")).toHaveLength(4);
  const rest: Buffer[] = [];
  for await (const reply of stream) rest.push(Buffer.from(reply.payload!.data));
  expect(rest.map(({ length }) => length)).toEqual([segment + 16, 26]);
  const document = Buffer.concat([...first, ...rest]);
  expect((await put("files/decrypt", document)).bytes.equals(plain)).toBe(true);
  expect(Buffer.concat(await read(decryptStream(document))).equals(plain)).toBe(true);
});

test("a document of many times the body limit passes over gRPC", async () => {
  const total = 16 * maxBody;
  const chunk = randomBytes(1024 * 1024);
  const stream = encrypting({});
  const back = grpc.stream(method.decryptAlpha1);
  back.send({ options: { componentName: "files" } });
  const received = (async () => {
    let size = 0;
    for (const message of await collect()) size += message;
    return size;
  })();
  for (let seq = 0; seq < total / chunk.length; seq++)
    stream.send({ payload: { data: chunk, seq: BigInt(seq) } });
  stream.end();
  let seq = 0n;
  for await (const { payload } of stream) back.send({ payload: { data: payload!.data, seq: seq++ } });
  back.end();
  expect(await received).toBe(total);

  async function collect(): Promise<number[]> {
    const sizes: number[] = [];
    for await (const { payload } of back) {
      const offset = (sizes.length * segment) % chunk.length;
      expect(chunk.subarray(offset, offset + segment).equals(payload!.data)).toBe(true);
      sizes.push(payload!.data.length);
    }
    return sizes;
  }
});

test("the key name of the document and of the request", async () => {
  const plain = Buffer.from("plain");
  const nameless = await put("files/encrypt", plain, { ...aes, "dapr-omit-decryption-key-name": "yes" });
  const missing = "document's manifest does not contain a key name, and no key name was provided";
  expect((await put("files/decrypt", nameless.bytes)).json()).toEqual({
    errorCode: "ERR_CRYPTO",
    message: `failed to perform operation: ${missing}`,
  });
  expect((await put("files/decrypt", nameless.bytes, { "dapr-key-name": "aes" })).text).toBe("plain");
  const renamed = await put("files/encrypt", plain, { ...aes, "dapr-decryption-key-name": "new" });
  expect(renamed.text).toMatch(/^dapr\.io\/enc\/v1\n\{"k":"new"/);
});

test("a body above the limit is refused, whether its length is told or not", async () => {
  const part = 256 * 1024;
  const head =
    "PUT /v1.0-alpha1/crypto/files/encrypt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" +
    "dapr-key-name: aes\r\ndapr-key-wrap-algorithm: AES\r\n";
  const told = await rawHttp(sidecar.httpPort, `${head}Content-Length: ${maxBody + 1}\r\n\r\n`);
  const chunk = `${part.toString(16)}\r\n${"x".repeat(part)}\r\n`;
  const chunks = `Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(maxBody / part + 1)}`;
  const untold = await rawHttp(sidecar.httpPort, head + chunks);
  for (const answer of [told, untold]) {
    expect(answer).toMatch(/^HTTP\/1.1 400 /);
    expect(answer).toContain('"errorCode":"ERR_BODY_READ"');
    expect(answer).toContain("set by --max-body-size");
  }
});

test("a changed segment: nothing over HTTP, the segments before it over gRPC", async () => {
  const plain = randomBytes(3 * segment);
  const document = (await put("files/encrypt", plain, aes)).bytes;
  document[document.length - segment - 100]! ^= 1;
  const answer = await put("files/decrypt", document);
  const text = "error processing segment 1: failed to decrypt segment";
  expect([answer.status, answer.json()]).toEqual([500, { errorCode: "ERROR", message: text }]);
  const stream = decryptStream(document);
  const first = await stream.next();
  expect(plain.subarray(0, segment).equals(first!.payload!.data)).toBe(true);
  const error = await failure(stream.next());
  expect([error.code, error.details]).toEqual([13, `failed to perform operation: ${text}`]);
});

const signature = "failed to perform operation: failed to validate the document's signature";

test("another key opens nothing", async () => {
  const document = (await put("files/encrypt", Buffer.from("x"), aes)).bytes;
  for (const key of ["other", "nobody", "rsa.pem", "../outside"]) {
    const answer = await put("files/decrypt", document, { "dapr-key-name": key });
    expect([answer.status, answer.json()]).toEqual([500, { errorCode: "ERR_CRYPTO", message: signature }]);
  }
});

const wrapFailed = "failed to perform operation: failed to wrap the file key:";
test.each([
  ["nowhere", "aes", "AES", 400, 3, "ERR_CRYPTO_PROVIDER_NOT_FOUND", "crypto provider nowhere not found"],
  [
    "files",
    "aes",
    "rot13",
    500,
    13,
    "ERR_CRYPTO",
    "failed to perform operation: option Algorithm is not valid: algorithm ROT13 is not supported",
  ],
  ["files", "aes", "RSA", 500, 13, "ERR_CRYPTO", `${wrapFailed} failed to encrypt data: key type mismatch`],
  [
    "files",
    "aes",
    "A256CBC-NOPAD",
    500,
    13,
    "ERR_CRYPTO",
    `${wrapFailed} failed to encrypt data: unsupported algorithm`,
  ],
  [
    "set",
    "nobody",
    "AES",
    500,
    13,
    "ERR_CRYPTO",
    `${wrapFailed} failed to retrieve the key encryption key: key not found`,
  ],
])(
  "encrypt by %s, %s, %s fails with %i, %i %s",
  async (name, keyName, algorithm, status, code, errorCode, message) => {
    const headers = { "dapr-key-name": keyName, "dapr-key-wrap-algorithm": algorithm };
    const answer = await put(`${name}/encrypt`, Buffer.from("x"), headers);
    expect([answer.status, answer.json()]).toEqual([status, { errorCode, message }]);
    const stream = encrypting({ component: name, keyName, keyWrapAlgorithm: algorithm });
    const error = await failure(stream.next());
    expect([error.code, error.details]).toEqual([code, message]);
  },
);

test("what a request over HTTP must say", async () => {
  const message = async (name: string, headers: Record<string, string>): Promise<unknown> =>
    (await put(`${name}/encrypt`, Buffer.from("x"), headers)).json<{ message: string }>().message;
  expect(await message("files", {})).toBe("invalid request: missing header 'dapr-key-name'");
  const named = { "dapr-key-name": "aes" };
  expect(await message("files", named)).toBe("invalid request: missing header 'dapr-key-wrap-algorithm'");
  expect(await message("nowhere", {})).toBe("crypto provider nowhere not found");
  expect(await message("files", { ...aes, "dapr-data-encryption-cipher": "des" })).toBe(
    "failed to perform operation: option Cipher is not valid: cipher DES is not supported",
  );
  const large = await put("files/encrypt", Buffer.alloc(maxBody + 1), aes);
  expect([large.status, large.json<{ errorCode: string }>().errorCode]).toEqual([400, "ERR_BODY_READ"]);
  const garbage = await put("files/decrypt", Buffer.from("hello\nworld"));
  expect([garbage.status, garbage.json<{ message: string }>().message]).toEqual([
    500,
    "failed to perform operation: invalid header: unsupported scheme",
  ]);
});

test("what a stream must say, and in which order", async () => {
  const options = { componentName: "files", keyName: "aes", keyWrapAlgorithm: "AES" };
  type Message = { options?: object; payload?: { data: Uint8Array; seq: bigint } };
  const data = Buffer.from("x");
  const told = async (...messages: Message[]): Promise<[number, string]> => {
    const stream = grpc.stream(method.encryptAlpha1);
    for (const message of messages) stream.send(message);
    stream.end();
    const { code, details } = await failure(read(stream));
    return [code, details];
  };
  expect(await told()).toEqual([13, "failed to perform operation: error receiving the first message: EOF"]);
  expect(await told({ payload: { data, seq: 0n } })).toEqual([
    3,
    "invalid request: first message does not contain the required options",
  ]);
  for (const name of ["keyName", "keyWrapAlgorithm"]) {
    const text = `invalid request: missing property '${name}' in the options message`;
    expect(await told({ options: { ...options, componentName: "nowhere", [name]: "" } })).toEqual([3, text]);
  }
  expect(await told({ options: { ...options, componentName: "" } })).toEqual([
    3,
    "invalid request: missing component name",
  ]);
  expect(await told({ options, payload: { data, seq: 0n } }, { payload: { data, seq: 3n } })).toEqual([
    13,
    "failed to perform operation: invalid sequence number received: 3 (expected: 1)",
  ]);
  expect(await told({ options }, { options })).toEqual([
    13,
    "failed to perform operation: options found in non-leading message",
  ]);
});

test("a stream without a first message ends by itself", async () => {
  const stream = grpc.stream(method.decryptAlpha1);
  const error = await failure(stream.next());
  const text = "invalid request: error waiting for first message: context deadline exceeded";
  expect([error.code, error.details]).toEqual([3, text]);
});

test("operations on single keys are not there", async () => {
  const text = "this API is currently not implemented";
  for (const name of ["getkey", "encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify"]) {
    const answer = await sidecar.post(`/v1.0-alpha1/subtlecrypto/nowhere/${name}`, {});
    expect([answer.status, answer.json()]).toEqual([
      501,
      { errorCode: "ERR_API_UNIMPLEMENTED", message: text },
    ]);
  }
  const error = await failure(grpc.unary(method.subtleSignAlpha1, {}));
  expect([error.code, error.details]).toEqual([12, text]);
});

test("calls of providers are counted", async () => {
  await put("set/encrypt", Buffer.from("x"), { ...aes, "dapr-key-name": "nobody" });
  await eventually(async () => {
    const text = await (await fetch(`http://127.0.0.1:${sidecar.metricsPort}/`)).text();
    expect(text).toMatch(
      /dapr_component_crypto_count\{[^}]*component="set"[^}]*success="false"[^}]*\} [1-9]/,
    );
    expect(text).toMatch(
      /dapr_component_crypto_count\{[^}]*component="files"[^}]*success="true"[^}]*\} [1-9]/,
    );
  });
});

test("without any provider", async () => {
  await using bare = await startSidecar({ appId: "bare", nats, resources: {} });
  const answer = await bare.http("/v1.0-alpha1/crypto/files/encrypt", { method: "PUT", body: "x" });
  expect([answer.status, answer.text]).toEqual([
    500,
    '{"errorCode":"ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED","message":"crypto providers not configured"}',
  ]);
});
