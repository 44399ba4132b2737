/** Methods of the cryptography API over gRPC: two-way streams of chunks, any number of them in little memory. */
import type { StreamPayload } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { Clock } from "../../../mesh/index.ts";
import { type GrpcMethod, streaming, unary } from "../../api/grpc.ts";
import type { Cryptography } from "./crypto.ts";
import { badRequest, operationFailed, subtleNotThere } from "./errors.ts";
import { DocumentError } from "./header.ts";
import { type Chunks, joined, type Pieces, SegmentError } from "./segments.ts";

/** Longest wait for the message with the options. */
const firstMessageMs = 5_000;

/** All gRPC methods of the block. */
export function cryptoGrpcMethods(cryptography: Cryptography, clock: Clock): GrpcMethod[] {
  const subtle = (): Promise<never> => Promise.reject(subtleNotThere());
  return [
    streaming(Dapr.method.encryptAlpha1, async function* (requests, call) {
      const { options, chunks } = await begin(requests, clock);
      for (const name of ["keyName", "keyWrapAlgorithm"] as const)
        if (options[name] === "") throw badRequest(`missing property '${name}' in the options message`);
      const provider = cryptography.provider(options.componentName);
      const wanted = {
        keyName: options.keyName,
        algorithm: options.keyWrapAlgorithm,
        cipher: options.dataEncryptionCipher,
        decryptionKeyName: options.decryptionKeyName,
        omitKeyName: options.omitDecryptionKeyName,
      };
      yield* replies(cryptography.encrypt(provider, wanted, chunks, call.signal));
    }),
    streaming(Dapr.method.decryptAlpha1, async function* (requests, call) {
      const { options, chunks } = await begin(requests, clock);
      const provider = cryptography.provider(options.componentName);
      yield* replies(cryptography.decrypt(provider, options, chunks, call.signal));
    }),
    unary(Dapr.method.subtleGetKeyAlpha1, subtle),
    unary(Dapr.method.subtleEncryptAlpha1, subtle),
    unary(Dapr.method.subtleDecryptAlpha1, subtle),
    unary(Dapr.method.subtleWrapKeyAlpha1, subtle),
    unary(Dapr.method.subtleUnwrapKeyAlpha1, subtle),
    unary(Dapr.method.subtleSignAlpha1, subtle),
    unary(Dapr.method.subtleVerifyAlpha1, subtle),
  ];
}

type Request<O> = { readonly options?: O | undefined; readonly payload?: StreamPayload | undefined };

/** The options of the first message, and all data behind them. Rejects with ApiError. */
async function begin<O>(
  requests: AsyncIterable<Request<O>>,
  clock: Clock,
): Promise<{ readonly options: O; readonly chunks: Chunks }> {
  const source = requests[Symbol.asyncIterator]();
  const late = Promise.withResolvers<never>();
  const timer = clock.setTimeout(() => {
    late.reject(badRequest("error waiting for first message: context deadline exceeded"));
  }, firstMessageMs);
  try {
    const first = await Promise.race([source.next(), late.promise]);
    if (first.done === true)
      throw operationFailed(new DocumentError("error receiving the first message: EOF"));
    const { options, payload } = first.value;
    if (options === undefined) throw badRequest("first message does not contain the required options");
    return { options, chunks: dataOf(payload, source) };
  } finally {
    timer.cancel();
  }
}

/** Throws DocumentError for messages out of order. */
async function* dataOf<O>(
  first: StreamPayload | undefined,
  source: AsyncIterator<Request<O>>,
): AsyncGenerator<Uint8Array> {
  let expected = 0n;
  const take = ({ data, seq }: StreamPayload): Uint8Array => {
    if (seq !== expected)
      throw new DocumentError(`invalid sequence number received: ${seq} (expected: ${expected})`);
    expected += 1n;
    return data;
  };
  if (first !== undefined) yield take(first);
  for (let step = await source.next(); step.done !== true; step = await source.next()) {
    const { options, payload } = step.value;
    if (options !== undefined) throw new DocumentError("options found in non-leading message");
    if (payload !== undefined) yield take(payload);
  }
}

async function* replies(
  parts: AsyncIterable<Pieces>,
): AsyncGenerator<{ payload: { data: Uint8Array; seq: bigint } }> {
  let seq = 0n;
  try {
    for await (const pieces of parts) {
      yield { payload: { data: joined(pieces), seq } };
      seq += 1n;
    }
  } catch (error) {
    throw error instanceof DocumentError || error instanceof SegmentError ? operationFailed(error) : error;
  }
}
