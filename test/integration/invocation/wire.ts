/**
 * What a sidecar tells its gRPC app about the ends of its requests, read from the frames on the wire: libraries show a
 * cancel as the end of the requests now and then.
 */
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { endStream, FrameSplit, FrameType, type Http2Frame, preface } from "../grpc/http2-frames.ts";

/** One call to the app. `reset` is the code of its RST_STREAM. */
export type WireCall = { completed: boolean; reset: number | undefined };

export type AppWire = AsyncDisposable & {
  /** Where the sidecar finds the app. */
  readonly port: number;
  /** In the order in which they were opened. */
  readonly calls: WireCall[];
};

/** Stands before an app. */
export async function appWire(appPort: number): Promise<AppWire> {
  const calls: WireCall[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (sidecar) => {
    const app = connect({ host: "127.0.0.1", port: appPort, noDelay: true });
    const split = new FrameSplit(preface.length);
    const open = new Map<number, WireCall>();
    sidecar.on("data", (chunk: Buffer) => {
      for (const frame of split.push(chunk)) note(frame, open, calls);
    });
    sidecar.pipe(app).pipe(sidecar);
    for (const [one, other] of [[sidecar, app] as const, [app, sidecar] as const]) {
      sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    calls,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function note(
  { type, flags, stream, payload }: Http2Frame,
  open: Map<number, WireCall>,
  calls: WireCall[],
): void {
  if (type === FrameType.headers && !open.has(stream)) {
    const call = { completed: false, reset: undefined };
    open.set(stream, call);
    calls.push(call);
  }
  const call = open.get(stream);
  if (call === undefined) return;
  const ends = type === FrameType.headers || type === FrameType.data;
  if (ends && (flags & endStream) !== 0) call.completed = true;
  if (type === FrameType.rst) call.reset = payload.readUInt32BE(0);
}
