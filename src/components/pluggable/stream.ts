/** A stream of messages both ways: what comes is handed over, with a bound on how much of it is being handled. */
import {
  create,
  type DescMessage,
  type DescMethodBiDiStreaming,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type ClientHttp2Stream, constants } from "node:http2";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { encodeFrame, FrameReader, percentDecode } from "../../lib/grpc-wire.ts";

/** Messages that are handled at once; above that the plug-in is not read. */
const maxHandled = 1_000;
const unavailable = 14;

/** Gets the way to send when the stream is open; gives what to do with each message that comes. */
export type PluginStream<I extends DescMessage, O extends DescMessage> = (wire: {
  send(message: MessageInitShape<I>): void;
  /** No more will be sent; the plug-in ends the stream. */
  finish(): void;
}) => (message: MessageShape<O>) => Promise<void> | void;

/** Resolves at the end with status OK; rejects with GrpcStatusError at any other. */
export function runStream<I extends DescMessage, O extends DescMessage>(
  stream: ClientHttp2Stream,
  method: DescMethodBiDiStreaming<I, O>,
  run: PluginStream<I, O>,
  maxMessageBytes: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const frames = new FrameReader(maxMessageBytes);
    let fields: Record<string, unknown> = {};
    let handled = 0;
    const fail = (error: Error): void => {
      reject(error);
      stream.close(constants.NGHTTP2_CANCEL);
    };
    const done = (): void => {
      if (--handled < maxHandled && stream.isPaused()) stream.resume();
    };
    const take = run({
      send: (message) => {
        if (!stream.closed && !stream.writableEnded)
          stream.write(encodeFrame(toBinary(method.input, create(method.input, message))));
      },
      finish: () => void stream.end(),
    });
    stream.on("error", (error) => reject(new GrpcStatusError(unavailable, error.message)));
    stream.once("response", (headers) => (fields = { ...headers }));
    stream.once("trailers", (trailers) => (fields = { ...fields, ...trailers }));
    stream.on("data", (chunk: Buffer) => {
      frames.push(chunk);
      try {
        for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
          if (++handled >= maxHandled) stream.pause();
          void Promise.resolve(take(fromBinary(method.output, frame.bytes))).then(done, fail);
        }
      } catch (error) {
        fail(error as Error);
      }
    });
    stream.once("close", () => {
      const code = fields["grpc-status"];
      if (code === "0") return resolve();
      if (typeof code !== "string")
        return reject(new GrpcStatusError(unavailable, "the plug-in ended the stream"));
      reject(new GrpcStatusError(Number(code), percentDecode(String(fields["grpc-message"] ?? ""))));
    });
  });
}
