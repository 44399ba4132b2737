/**
 * The `appHttpPipeline` around requests to the app and to servers outside. Bodies stay streams unless a middleware asks
 * for them.
 */
import { collectBody, type BodyStream, type MeshRequest, type MeshResponse } from "../../mesh/index.ts";
import { ApiError, GrpcCode } from "../api/errors.ts";
import { upgradeName } from "../api/upgrade.ts";
import { getHeader } from "../lib/flat-headers.ts";
import type { Pipeline } from "../middleware/pipeline.ts";
import type { MiddlewareReply, MiddlewareRequest } from "../middleware/port.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";

/** The pipeline of now, undefined without handlers: to be read for each request. */
export type AppPipelines = { readonly app: AppPipeline | undefined };

type Body = Uint8Array | BodyStream;

/** Largest answer to a callback, bytes; its sender has the same limit. */
const maxCallbackBytes = 64 * 1024 * 1024;

export class AppPipeline {
  readonly #pipeline: Pipeline;
  readonly #maxBodyBytes: number;

  /** `maxBodyBytes` bounds what a middleware may hold of a body. */
  constructor(pipeline: Pipeline, maxBodyBytes: number) {
    this.#pipeline = pipeline;
    this.#maxBodyBytes = maxBodyBytes;
  }

  /** An invocation, by `send`. Rejects as that does. */
  async invoke(
    request: MeshRequest,
    signal: AbortSignal,
    send: (request: MeshRequest) => Promise<MeshResponse>,
  ): Promise<MeshResponse> {
    const { verb, path, query, headers, body } = request;
    const outgoing = new OutgoingRequest({ verb, path, query, headers }, body, this.#maxBodyBytes, signal);
    const reply = await this.#run(outgoing, async () => {
      const { verb, path, query, headers, sent } = outgoing;
      return send({ verb, path, query, headers, body: sent });
    });
    return { status: reply.status, headers: reply.headers, body: reply.body };
  }

  /** A callback, by `send`. Rejects as that does. */
  async callback(
    request: AppHttpRequest,
    signal: AbortSignal,
    send: (request: AppHttpRequest) => Promise<AppHttpResponse>,
  ): Promise<AppHttpResponse> {
    const mark = request.path.indexOf("?");
    const path = mark < 0 ? request.path : request.path.slice(0, mark);
    const query = mark < 0 ? "" : request.path.slice(mark + 1);
    const head = { verb: request.verb, path, query, headers: request.headers };
    const outgoing = new OutgoingRequest(head, request.body ?? noBody, this.#maxBodyBytes, signal);
    const reply = await this.#run(outgoing, async () => {
      const { verb, path, query, headers, sent } = outgoing;
      const target = query === "" ? path : `${path}?${query}`;
      return send({ verb, path: target, headers, body: sent as Uint8Array });
    });
    const body = await collectBody(reply.body, maxCallbackBytes);
    return { status: reply.status, headers: reply.headers, body: asBuffer(body) };
  }

  /** A body that nobody has read when the answer is there is not needed any more. */
  async #run(request: OutgoingRequest, send: () => Promise<MiddlewareReply>): Promise<MiddlewareReply> {
    let sent = false;
    try {
      return await this.#pipeline.run(request, () => {
        sent = true;
        return send();
      });
    } finally {
      if (!sent) request.discard();
    }
  }
}

const noBody = new Uint8Array(0);

type Head = Pick<MiddlewareRequest, "verb" | "path" | "query" | "headers">;

class OutgoingRequest implements MiddlewareRequest {
  verb: string;
  path: string;
  query: string;
  headers: readonly string[];
  readonly remoteAddress = "";
  readonly protocol = "HTTP/1.1";
  readonly maxBodyBytes: number;
  readonly signal: AbortSignal;
  #body: Body;
  /** Behind the request comes a connection (WebSocket), no body. */
  readonly #isTunnel: boolean;
  #whole: Promise<Uint8Array> | undefined;

  constructor(head: Head, body: Body, maxBodyBytes: number, signal: AbortSignal) {
    this.verb = head.verb;
    this.path = head.path;
    this.query = head.query;
    this.headers = head.headers;
    this.#body = body;
    this.#isTunnel = getHeader(head.headers, upgradeName) !== undefined;
    this.maxBodyBytes = maxBodyBytes;
    this.signal = signal;
  }

  /** The body as it is to be sent. */
  get sent(): Body {
    return this.#body;
  }

  body(): Promise<Uint8Array> {
    return (this.#whole ??= this.#isTunnel ? Promise.resolve(noBody) : this.#read());
  }

  setBody(body: Uint8Array): void {
    if (this.#isTunnel) return;
    if (body !== this.#body) this.discard();
    this.#body = body;
    this.#whole = Promise.resolve(body);
  }

  discard(): void {
    if (!(this.#body instanceof Uint8Array)) this.#body.cancel(new Error("a middleware answered by itself"));
  }

  async #read(): Promise<Uint8Array> {
    try {
      return (this.#body = await collectBody(this.#body, this.maxBodyBytes));
    } catch (cause) {
      throw unreadable(cause);
    }
  }
}

function unreadable(cause: unknown): ApiError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ApiError({
    code: "ERR_BODY_READ",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: `failed to read request body for a middleware: ${reason}`,
    cause,
  });
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
