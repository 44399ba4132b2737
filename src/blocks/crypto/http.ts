/** Routes of the cryptography API over HTTP: decode, call crypto.ts, encode. Nothing is answered before all is done. */
import { isTruthy } from "../../lib/truthy.ts";
import { BodyQueue } from "../../../mesh/index.ts";
import { bodyTooLarge } from "../../api/errors.ts";
import { BodyTooLarge, type HttpCall, type HttpReply, type HttpRoute } from "../../api/http.ts";
import type { Cryptography } from "./crypto.ts";
import { badRequest, operationFailed, subtleNotThere } from "./errors.ts";
import { DocumentError } from "./header.ts";
import type { Chunks, Pieces } from "./segments.ts";

/** All HTTP routes of the block. */
export function cryptoHttpRoutes(cryptography: Cryptography): HttpRoute[] {
  return [
    {
      verbs: ["PUT"],
      path: "/v1.0-alpha1/crypto/{name}/encrypt",
      name: "Encrypt",
      group: "crypto",
      handle: (call) => encrypt(cryptography, call),
    },
    {
      verbs: ["PUT"],
      path: "/v1.0-alpha1/crypto/{name}/decrypt",
      name: "Decrypt",
      group: "crypto",
      handle: (call) => decrypt(cryptography, call),
    },
    ...subtleRoutes,
  ];
}

const subtleNames = {
  getkey: "SubtleGetKey",
  encrypt: "SubtleEncrypt",
  decrypt: "SubtleDecrypt",
  wrapkey: "SubtleWrapKey",
  unwrapkey: "SubtleUnwrapKey",
  sign: "SubtleSign",
  verify: "SubtleVerify",
} as const;

const subtleRoutes: readonly HttpRoute[] = Object.entries(subtleNames).map(([path, name]) => ({
  verbs: ["POST"],
  path: `/v1.0-alpha1/subtlecrypto/{name}/${path}`,
  name,
  group: "subtlecrypto",
  handle() {
    throw subtleNotThere();
  },
}));

async function encrypt(cryptography: Cryptography, call: HttpCall): Promise<HttpReply> {
  const provider = cryptography.provider(call.params[0]!);
  const options = {
    keyName: required(call, "dapr-key-name"),
    algorithm: required(call, "dapr-key-wrap-algorithm"),
    cipher: header(call, "dapr-data-encryption-cipher"),
    decryptionKeyName: header(call, "dapr-decryption-key-name"),
    omitKeyName: isTruthy(header(call, "dapr-omit-decryption-key-name")),
  };
  return reply(cryptography.encrypt(provider, options, await chunksOf(call), call.signal));
}

async function decrypt(cryptography: Cryptography, call: HttpCall): Promise<HttpReply> {
  const provider = cryptography.provider(call.params[0]!);
  const options = { keyName: header(call, "dapr-key-name") };
  return reply(cryptography.decrypt(provider, options, await chunksOf(call), call.signal));
}

/** The body as it comes. */
async function chunksOf(call: HttpCall): Promise<Chunks> {
  const content = await call.content();
  return content instanceof Uint8Array ? single(content) : content;
}

async function* single(bytes: Uint8Array): Chunks {
  yield bytes;
}

/**
 * Plaintext leaves only when the whole document is proved. Ciphertext waits as well: clients that send all of their
 * body before they read an answer would else wait for ever.
 */
async function reply(parts: AsyncIterable<Pieces>): Promise<HttpReply> {
  const all: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const pieces of parts) {
      for (const piece of pieces) {
        all.push(piece);
        size += piece.length;
      }
    }
  } catch (error) {
    if (error instanceof BodyTooLarge) throw bodyTooLarge(error.limitBytes);
    throw error instanceof DocumentError ? operationFailed(error) : error;
  }
  const body = new BodyQueue({}, size);
  for (const piece of all) body.push(piece);
  body.end();
  const headers = { "Content-Type": "application/octet-stream", "Content-Length": String(size) };
  return { status: 200, headers, body };
}

function required(call: HttpCall, name: string): string {
  const value = header(call, name);
  if (value === "") throw badRequest(`missing header '${name}'`);
  return value;
}

/** Headers come as bytes; names of keys are UTF-8. */
function header(call: HttpCall, name: string): string {
  const value = call.headers[name];
  const text = typeof value === "string" ? value : (value?.[0] ?? "");
  return Buffer.from(text, "latin1").toString();
}
