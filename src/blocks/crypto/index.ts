/** The cryptography block: the app encrypts and decrypts documents with keys that it never sees. */
import type { Block, BlockHost } from "../block.ts";
import { Cryptography } from "./crypto.ts";
import { cryptoHttpRoutes } from "./http.ts";

export function cryptoBlock(host: BlockHost): Block {
  const cryptography = new Cryptography(host);
  return {
    name: "crypto",
    http: cryptoHttpRoutes(cryptography),
    grpc: async () => (await import("./grpc.ts")).cryptoGrpcMethods(cryptography, host.clock),
  };
}
