/**
 * The cryptography API without its protocols: finds the provider, lets it wrap the key of each document, and turns
 * chunks of any length into those of the document or back, one segment at a time. http.ts and grpc.ts decode and
 * encode.
 */
import { randomBytes } from "node:crypto";
import { callUnder } from "../../resiliency/policy.ts";
import type { CountFamily, LatencyFamily } from "../../telemetry/metrics.ts";
import type { BlockHost } from "../block.ts";
import * as errors from "./errors.ts";
import {
  algorithmOf,
  cipherOf,
  DocumentError,
  fileKeyBytes,
  noncePrefixBytes,
  readHeader,
  verifyHeader,
  writeHeader,
} from "./header.ts";
import type { CryptoProvider, WrapRequest } from "./port.ts";
import { type Chunks, type Pieces, seal, unseal } from "./segments.ts";

export type EncryptOptions = {
  readonly keyName: string;
  /** As the client writes it, any case; so is `cipher`, empty for the default. */
  readonly algorithm: string;
  readonly cipher: string;
  /** Stands in the document in place of `keyName` when not empty. */
  readonly decryptionKeyName: string;
  readonly omitKeyName: boolean;
};

export type DecryptOptions = {
  /** In place of the one that the document names; empty for that one. */
  readonly keyName: string;
};

/** A provider that is there, by its name. */
export type Provider = { readonly name: string; readonly port: CryptoProvider };

type Host = Pick<BlockHost, "components" | "options" | "clock" | "policies" | "metrics">;

/** The crypto providers of this sidecar as its app may use them. */
export class Cryptography {
  readonly #host: Host;
  readonly #count: CountFamily;
  readonly #latency: LatencyFamily;

  constructor(host: Host) {
    const { metrics } = host;
    const labels = ["component", "namespace", "operation", "success"];
    this.#host = host;
    this.#count = metrics.count("component_crypto_count", "Calls of crypto providers.", labels);
    this.#latency = metrics.latency(
      "component_crypto_latencies",
      "Time of calls of crypto providers, ms.",
      labels,
    );
  }

  /** Throws ApiError. */
  provider(name: string): Provider {
    const { components } = this.#host;
    if (components.all("crypto").length === 0) throw errors.providersNotConfigured();
    if (name === "") throw errors.badRequest("missing component name");
    const found = components.get<CryptoProvider>("crypto", name);
    if (found === undefined) throw errors.providerNotFound(name);
    return { name, port: found.port };
  }

  /** The header of the document, then each sealed segment. Throws DocumentError, or what reading `chunks` throws. */
  async *encrypt(
    provider: Provider,
    options: EncryptOptions,
    chunks: Chunks,
    signal: AbortSignal,
  ): AsyncGenerator<Pieces> {
    const { keyName, decryptionKeyName, omitKeyName } = options;
    const algorithm = algorithmOf(options.algorithm);
    const cipher = cipherOf(options.cipher);
    const fileKey = randomBytes(fileKeyBytes);
    const noncePrefix = randomBytes(noncePrefixBytes);
    let wrappedKey: Uint8Array;
    try {
      wrappedKey = await this.#call(provider, "wrapKey", { bytes: fileKey, keyName, algorithm }, signal);
    } catch (cause) {
      const text = cause instanceof Error ? cause.message : String(cause);
      throw new DocumentError(`failed to wrap the file key: ${text}`, cause);
    }
    const named = decryptionKeyName === "" ? keyName : decryptionKeyName;
    const shown = omitKeyName ? undefined : named;
    yield [writeHeader({ keyName: shown, algorithm, wrappedKey, cipher, noncePrefix }, fileKey)];
    yield* seal(chunks, { cipher, fileKey, noncePrefix });
  }

  /**
   * The plaintext of each segment, none before it is proved. Throws DocumentError, SegmentError, or what reading
   * `chunks` throws.
   */
  async *decrypt(
    provider: Provider,
    options: DecryptOptions,
    chunks: Chunks,
    signal: AbortSignal,
  ): AsyncGenerator<Pieces> {
    const source = chunks[Symbol.asyncIterator]();
    const { header, rest } = await readHeader(source);
    const { algorithm, wrappedKey, cipher, noncePrefix } = header.manifest;
    const keyName = options.keyName === "" ? header.manifest.keyName : options.keyName;
    if (keyName === undefined) {
      const text = "document's manifest does not contain a key name, and no key name was provided";
      throw new DocumentError(text);
    }
    let fileKey: Uint8Array | undefined;
    let failure: unknown;
    try {
      fileKey = await this.#call(provider, "unwrapKey", { bytes: wrappedKey, keyName, algorithm }, signal);
    } catch (cause) {
      failure = cause;
    }
    const proved = verifyHeader(header, fileKey, failure);
    yield* unseal(following(rest, source), { cipher, fileKey: proved, noncePrefix });
  }

  /** A call of the provider, under its policy; counted and timed as a whole. */
  async #call(
    { name, port }: Provider,
    operation: "wrapKey" | "unwrapKey",
    request: WrapRequest,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { clock, policies, options } = this.#host;
    const startMs = clock.monotonicMs();
    let success = "false";
    try {
      const guard = policies.component(name, "Crypto", "outbound");
      const bytes = await callUnder(guard, signal, (now) => port[operation](request, now));
      success = "true";
      return bytes;
    } finally {
      const latencyMs = clock.monotonicMs() - startMs;
      this.#count(name, options.namespace, "crypto_op", success);
      if (latencyMs > 0) this.#latency(latencyMs, name, options.namespace, "crypto_op", success);
    }
  }
}

async function* following(first: Uint8Array, source: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  for (let step = await source.next(); step.done !== true; step = await source.next()) yield step.value;
}
