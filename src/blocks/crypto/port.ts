/**
 * What a crypto provider must do: wrap and unwrap the short keys with which documents are encrypted. It holds the keys
 * and never gives them out. One contract suite (test/contract/crypto.ts) runs against every provider.
 */

/** Algorithms that a document can name; no provider does the three `CBC` ones. */
export type WrapAlgorithm = "A256KW" | "A128CBC-NOPAD" | "A192CBC-NOPAD" | "A256CBC-NOPAD" | "RSA-OAEP-256";

export type WrapRequest = {
  /** What is wrapped (`wrapKey`), or was (`unwrapKey`). */
  readonly bytes: Uint8Array;
  readonly keyName: string;
  readonly algorithm: WrapAlgorithm;
};

/** All methods may run at once and reject with a readable Error that tells nothing of any key's bytes. */
export type CryptoProvider = {
  wrapKey(request: WrapRequest, signal: AbortSignal): Promise<Uint8Array>;
  unwrapKey(request: WrapRequest, signal: AbortSignal): Promise<Uint8Array>;
  /** Called once, when no call runs any more. */
  close(): Promise<void>;
};
