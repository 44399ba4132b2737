/** One HTTP request as blocks see it (api/http.ts), over node:http. Everything is computed on first use. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError, GrpcCode } from "../api/errors.ts";
import type { HttpCall } from "../api/http.ts";

const noBody = Buffer.alloc(0);

export class NodeHttpCall implements HttpCall {
  readonly verb: string;
  readonly path: string;
  readonly rawPath: string;
  readonly query: string;
  params: readonly string[] = [];
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #maxBodyBytes: number;
  #abort: AbortController | undefined;
  #search: URLSearchParams | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    rawPath: string,
    query: string,
    maxBodyBytes: number,
  ) {
    this.#request = request;
    this.#response = response;
    this.verb = request.method ?? "GET";
    this.path = path;
    this.rawPath = rawPath;
    this.query = query;
    this.#maxBodyBytes = maxBodyBytes;
  }

  get headers(): IncomingMessage["headers"] {
    return this.#request.headers;
  }

  get rawHeaders(): readonly string[] {
    return this.#request.rawHeaders;
  }

  get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#response.once("close", () => {
        if (!this.#response.writableFinished) abort.abort(new Error("the client went away"));
      });
    }
    return this.#abort.signal;
  }

  body(): Promise<Buffer> {
    const request = this.#request;
    const declared = request.headers["content-length"];
    if (declared === undefined && request.headers["transfer-encoding"] === undefined)
      return Promise.resolve(noBody);
    if (declared !== undefined && Number(declared) > this.#maxBodyBytes)
      return Promise.reject(this.#bodyTooLarge());
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      request.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > this.#maxBodyBytes) {
          request.pause();
          reject(this.#bodyTooLarge());
          return;
        }
        chunks.push(chunk);
      });
      request.once("end", () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size)));
      request.once("error", (cause) => reject(bodyUnreadable(cause.message, cause)));
      request.once("close", () => {
        if (!request.complete) reject(bodyUnreadable("unexpected EOF"));
      });
    });
  }

  queryValue(name: string): string | undefined {
    return this.query === "" ? undefined : (this.#parameters().get(name) ?? undefined);
  }

  queryValues(name: string): string[] {
    return this.query === "" ? [] : this.#parameters().getAll(name);
  }

  metadata(): Record<string, string> {
    const metadata: Record<string, string> = {};
    if (this.query === "") return metadata;
    for (const [name, value] of this.#parameters()) {
      if (!name.startsWith("metadata.")) continue;
      const key = name.slice("metadata.".length);
      if (!Object.hasOwn(metadata, key)) metadata[key] = value;
    }
    return metadata;
  }

  #parameters(): URLSearchParams {
    return (this.#search ??= new URLSearchParams(this.query));
  }

  #bodyTooLarge(): ApiError {
    return bodyUnreadable(
      `http: request body too large (limit ${this.#maxBodyBytes} bytes, set by --max-body-size)`,
    );
  }
}

function bodyUnreadable(reason: string, cause?: unknown): ApiError {
  return new ApiError({
    code: "ERR_BODY_READ",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: `failed to read request body: ${reason}`,
    cause,
  });
}
