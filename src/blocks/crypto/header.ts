/**
 * The head of an encrypted document (`dapr.io/enc/v1`): three lines that say how its file key is wrapped and prove
 * that whoever wrote them had that key. The format is Dapr's: documents go from either to the other.
 */
import { createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { goJson, unmarshalJson } from "../../lib/go-json.ts";
import type { WrapAlgorithm } from "./port.ts";

export type Cipher = "AES-GCM" | "CHACHA20-POLY1305";

/** The second line. */
export type Manifest = {
  /** Undefined when the document does not name its key. */
  readonly keyName: string | undefined;
  readonly algorithm: WrapAlgorithm;
  readonly wrappedKey: Uint8Array;
  readonly cipher: Cipher;
  /** First bytes of the nonce of each segment. */
  readonly noncePrefix: Uint8Array;
};

export type Header = {
  readonly manifest: Manifest;
  /** The lines that the MAC is made of, with their ends. */
  readonly signed: Uint8Array;
  readonly mac: Uint8Array;
};

/** The document, or what is to become one, cannot be used; the message is for the client. */
export class DocumentError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "DocumentError";
  }
}

export const fileKeyBytes = 32;
export const noncePrefixBytes = 7;
/** All three lines with their ends. */
export const maxHeaderBytes = 64 * 1024;

const scheme = "dapr.io/enc/v1";
const lineFeed = 10;
/** By their number in the manifest, from one. */
const algorithms: readonly WrapAlgorithm[] = [
  "A256KW",
  "A128CBC-NOPAD",
  "A192CBC-NOPAD",
  "A256CBC-NOPAD",
  "RSA-OAEP-256",
];
const aliases: Readonly<Record<string, WrapAlgorithm>> = { AES: "A256KW", RSA: "RSA-OAEP-256" };
const ciphers: readonly Cipher[] = ["AES-GCM", "CHACHA20-POLY1305"];

/** Any case. Throws DocumentError. */
export function algorithmOf(name: string): WrapAlgorithm {
  const upper = name.toUpperCase();
  const found = Object.hasOwn(aliases, upper)
    ? aliases[upper]
    : algorithms.find((algorithm) => algorithm === upper);
  if (found !== undefined) return found;
  throw new DocumentError(`option Algorithm is not valid: algorithm ${upper} is not supported`);
}

/** Any case; AES-GCM for the empty name. Throws DocumentError. */
export function cipherOf(name: string): Cipher {
  const upper = name === "" ? "AES-GCM" : name.toUpperCase();
  const found = ciphers.find((cipher) => cipher === upper);
  if (found !== undefined) return found;
  throw new DocumentError(`option Cipher is not valid: cipher ${upper} is not supported`);
}

/** The three lines. Throws DocumentError when nobody could read them for their length. */
export function writeHeader(manifest: Manifest, fileKey: Uint8Array): Buffer {
  const { keyName, algorithm, wrappedKey, cipher, noncePrefix } = manifest;
  const members = [
    ...(keyName === undefined ? [] : [`"k":${goJson(keyName)}`]),
    `"kw":${algorithms.indexOf(algorithm) + 1}`,
    `"wfk":"${Buffer.from(wrappedKey).toString("base64")}"`,
    `"cph":${ciphers.indexOf(cipher) + 1}`,
    `"np":"${Buffer.from(noncePrefix).toString("base64")}"`,
  ];
  const signed = Buffer.from(`${scheme}\n{${members.join(",")}}\n`);
  const mac = macOf(signed, fileKey).toString("base64");
  const header = Buffer.concat([signed, Buffer.from(`${mac}\n`)]);
  if (header.length <= maxHeaderBytes) return header;
  throw new DocumentError("the name of the key is too long for the document's header");
}

/**
 * Reads the lines from the chunks of a document and leaves the chunks behind them. Nothing in it is proved until
 * `verifyHeader`. Throws DocumentError.
 */
export async function readHeader(
  chunks: AsyncIterator<Uint8Array>,
): Promise<{ header: Header; rest: Uint8Array }> {
  const bytes = Buffer.allocUnsafe(maxHeaderBytes);
  const ends: number[] = [];
  let size = 0;
  for (;;) {
    const { value: chunk, done } = await chunks.next();
    if (done === true) break;
    const taken = Math.min(chunk.length, maxHeaderBytes - size);
    bytes.set(chunk.subarray(0, taken), size);
    findEnds(bytes.subarray(0, size + taken), size, ends);
    if (ends.length === 3) {
      const rest = chunk.subarray(ends[2]! + 1 - size);
      return { header: parseHeader(bytes, ends), rest };
    }
    size += taken;
    if (size === maxHeaderBytes) break;
  }
  // Incomplete: the lines that are there say what is wrong first.
  parseHeader(bytes, ends);
  throw invalidHeader("message authentication code not found");
}

/** Adds the line ends from `from` on, up to three in all. */
function findEnds(bytes: Uint8Array, from: number, ends: number[]): void {
  let at = bytes.indexOf(lineFeed, from);
  while (at >= 0 && ends.length < 3) {
    ends.push(at);
    at = bytes.indexOf(lineFeed, at + 1);
  }
}

function parseHeader(bytes: Buffer, ends: readonly number[]): Header {
  const [first, second, third] = ends;
  if (first === undefined) throw invalidHeader("scheme name not found");
  if (first === 0) throw invalidHeader("invalid format");
  if (bytes.toString("latin1", 0, first) !== scheme) throw invalidHeader("unsupported scheme");
  if (second === undefined) throw invalidHeader("manifest not found");
  if (second === first + 1) throw invalidHeader("invalid format");
  if (third === undefined) throw invalidHeader("message authentication code not found");
  if (third === second + 1) throw invalidHeader("invalid format");
  const manifest = parseManifest(bytes.toString("utf8", first + 1, second));
  const mac = base64(bytes.toString("latin1", second + 1, third)) ?? Buffer.alloc(0);
  return { manifest, signed: Buffer.from(bytes.subarray(0, second + 1)), mac };
}

/** Members in any case and order; others are passed over. */
function parseManifest(text: string): Manifest {
  try {
    const value: unknown = unmarshalJson(text);
    if (typeof value !== "object" || value === null) throw new Error("it is no object");
    const members = new Map(
      Object.entries(value).map(([name, member]) => [name.toLowerCase(), member as unknown]),
    );
    const keyName = members.get("k");
    const algorithm = algorithms[Number(members.get("kw")) - 1];
    const cipher = ciphers[Number(members.get("cph")) - 1];
    const wrappedKey = base64(members.get("wfk"));
    const noncePrefix = base64(members.get("np"));
    if (keyName !== undefined && typeof keyName !== "string") throw new Error("k is no text");
    if (algorithm === undefined || typeof members.get("kw") !== "number") throw new Error("kw is not known");
    if (cipher === undefined || typeof members.get("cph") !== "number") throw new Error("cph is not known");
    if (wrappedKey === undefined || wrappedKey.length === 0) throw new Error("wfk is no base64");
    if (noncePrefix?.length !== noncePrefixBytes) throw new Error("np has not 7 bytes");
    return { keyName: keyName === "" ? undefined : keyName, algorithm, wrappedKey, cipher, noncePrefix };
  } catch (cause) {
    throw invalidHeader("invalid manifest", cause);
  }
}

function base64(value: unknown): Buffer | undefined {
  if (typeof value !== "string" || value.length % 4 !== 0) return undefined;
  const bytes = Buffer.from(value, "base64");
  return bytes.toString("base64") === value ? bytes : undefined;
}

/**
 * Throws the one error of all that is wrong with a key: whoever made the lines did not have it, or none was found
 * (undefined). A key of zeros is no key: anyone could have made such a document.
 */
export function verifyHeader(header: Header, fileKey: Uint8Array | undefined, cause?: unknown): Uint8Array {
  const usable = fileKey?.length === fileKeyBytes && fileKey.some((byte) => byte !== 0);
  // Computed in any case, so that the time tells nothing of what went wrong.
  const wanted = macOf(header.signed, usable ? fileKey : new Uint8Array(fileKeyBytes));
  const matches = header.mac.length === wanted.length && timingSafeEqual(wanted, header.mac);
  if (matches && usable) return fileKey;
  throw new DocumentError("failed to validate the document's signature", cause);
}

function macOf(signed: Uint8Array, fileKey: Uint8Array): Buffer {
  const key = Buffer.from(hkdfSync("sha256", fileKey, new Uint8Array(), "header", 32));
  return createHmac("sha256", key).update(signed).digest();
}

function invalidHeader(what: string, cause?: unknown): DocumentError {
  return new DocumentError(`invalid header: ${what}`, cause);
}
