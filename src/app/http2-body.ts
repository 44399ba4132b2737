/**
 * A streamed request body for undici over HTTP/2. When a request is given up, undici ends its stream before it resets
 * it, and the app would take what came for the whole. So the stream is cancelled here first.
 */
import { addAbortSignal, Readable, type Writable } from "node:stream";
import type { BodyStream } from "../../mesh/index.ts";
import { asError } from "../lib/thrown.ts";

export class Http2Body extends Readable {
  readonly #pieces: AsyncIterator<Uint8Array, undefined>;
  readonly #cancelled = new AbortController();

  constructor(body: BodyStream) {
    super({ highWaterMark: 0 });
    this.#pieces = body[Symbol.asyncIterator]();
    // undici stops listening once the request is over.
    this.on("error", () => {});
  }

  /** Cancels the stream to the app, if there is one. */
  cancel(): void {
    this.#cancelled.abort();
  }

  /** undici calls it with the stream to the app. */
  override pipe<T extends NodeJS.WritableStream>(stream: T, options?: { end?: boolean }): T {
    addAbortSignal(this.#cancelled.signal, stream as unknown as Writable);
    return super.pipe(stream, options);
  }

  override _read(): void {
    this.#pieces.next().then(
      ({ value }) => this.push(value ?? null),
      (error: unknown) => {
        // In this order, so that the request fails with what ended the body.
        this.destroy(asError(error));
        this.cancel();
      },
    );
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    void this.#pieces.return?.();
    done(error);
  }
}
