/**
 * Compression as Go's HTTP client does it: a caller that names no encoding gets the app's answer asked for in gzip and
 * unpacked here; a caller that names one gets the bytes as they are.
 */
import { createGunzip, gunzip } from "node:zlib";
import { BodyQueue, type BodyStream } from "../../mesh/index.ts";
import { headerValue } from "./headers.ts";

/** Unpacked bytes that wait for the reader before unpacking pauses. */
const highWaterBytes = 128 * 1024;

/** True when the sidecar itself asks for gzip. Not for parts of a file, whose offsets count packed bytes. */
export function asksForGzip(verb: string, headers: readonly string[]): boolean {
  return (
    verb !== "HEAD" &&
    headerValue(headers, "accept-encoding") === undefined &&
    headerValue(headers, "range") === undefined
  );
}

export function isGzip(headers: readonly string[]): boolean {
  return headerValue(headers, "content-encoding")?.toLowerCase() === "gzip";
}

/** Headers of the unpacked answer. */
export function withoutEncoding(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (name !== "content-encoding" && name !== "content-length") kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

/** Rejects for a body that is not gzip, or longer than `limitBytes` when unpacked. */
export function unpackGzip(body: Buffer, limitBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    gunzip(body, { maxOutputLength: limitBytes }, (cause, unpacked) => {
      if (cause === null) return resolve(unpacked);
      const large = (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
      const text = large
        ? `the app's answer is above ${limitBytes} bytes when unpacked`
        : `gzip: invalid data (${cause.message})`;
      reject(new Error(text, { cause }));
    });
  });
}

/** Unpacks piece by piece as the reader takes. A body that is not gzip, or breaks off, fails. */
export function unpackStream(body: BodyStream): BodyStream {
  const gunzipping = createGunzip();
  const fail = (error: Error): void => {
    queue.fail(error);
    body.cancel(error);
    gunzipping.destroy();
  };
  const queue = new BodyQueue({
    onTaken: () => void (queue.bufferedBytes < highWaterBytes / 2 && gunzipping.resume()),
    onCancel: fail,
  });
  gunzipping.on("data", (piece: Buffer) => {
    queue.push(piece);
    if (queue.bufferedBytes >= highWaterBytes) gunzipping.pause();
  });
  gunzipping.once("end", () => queue.end());
  gunzipping.once("error", (cause) => fail(new Error(`gzip: invalid data (${cause.message})`, { cause })));
  const feed = async (): Promise<void> => {
    for await (const piece of body) {
      if (gunzipping.write(piece) || gunzipping.destroyed) continue;
      await new Promise<void>((resolve) => {
        gunzipping.once("drain", resolve);
        gunzipping.once("close", resolve);
      });
    }
    gunzipping.end();
  };
  feed().catch(fail);
  return queue;
}
