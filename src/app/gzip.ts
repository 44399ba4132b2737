/**
 * Compression as Go's HTTP client does it: a caller that names no encoding gets the app's answer asked for in gzip and
 * unpacked here; a caller that names one gets the bytes as they are.
 */
import { gunzip } from "node:zlib";
import { headerValue } from "./headers.ts";

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
