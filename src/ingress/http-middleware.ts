/** The `httpPipeline` as a step of the HTTP port: a call becomes a middleware's request, its reply an answer. */
import type { HttpReply } from "../api/http.ts";
import type { Pipeline } from "../middleware/pipeline.ts";
import type { MiddlewareReply, MiddlewareRequest } from "../middleware/port.ts";
import type { IncomingCall } from "./http-call.ts";
import { flatHeaders } from "./http-reply.ts";
import type { HttpStep } from "./http-steps.ts";

export function middlewareStep(pipeline: Pipeline): HttpStep {
  return (next) => async (call) => {
    const request = new CallRequest(call);
    const reply = await pipeline.run(request, async () => {
      request.apply();
      return toMiddleware(await next(call));
    });
    return { status: reply.status, rawHeaders: reply.headers, body: reply.body };
  };
}

class CallRequest implements MiddlewareRequest {
  verb: string;
  path: string;
  query: string;
  headers: readonly string[];
  readonly #call: IncomingCall;
  #body: Promise<Uint8Array> | undefined;

  constructor(call: IncomingCall) {
    this.#call = call;
    this.verb = call.verb;
    this.path = call.rawPath;
    this.query = call.query;
    this.headers = call.rawHeaders;
  }

  get remoteAddress(): string {
    return this.#call.remoteAddress;
  }

  get protocol(): string {
    return this.#call.protocol;
  }

  get maxBodyBytes(): number {
    return this.#call.maxBodyBytes;
  }

  get signal(): AbortSignal {
    return this.#call.signal;
  }

  body(): Promise<Uint8Array> {
    if (this.#body === undefined) {
      this.#body = this.#call.body();
      // Who asks gets the failure; nobody else needs to.
      this.#body.then(
        (body) => this.#call.setBody(body),
        () => {},
      );
    }
    return this.#body;
  }

  setBody(body: Uint8Array): void {
    this.#body = Promise.resolve(body);
    this.#call.setBody(body);
  }

  /** Tells the call what has become of its request. */
  apply(): void {
    const call = this.#call;
    if (this.verb !== call.verb) call.verb = this.verb;
    if (this.path !== call.rawPath || this.query !== call.query) call.moveTo(this.path, this.query);
    if (this.headers !== call.rawHeaders) call.setHeaders(this.headers);
  }
}

const noBody = new Uint8Array(0);

function toMiddleware(reply: HttpReply): MiddlewareReply {
  const { body } = reply;
  return {
    status: reply.status,
    headers: flatHeaders(reply),
    body: typeof body === "string" ? Buffer.from(body) : (body ?? noBody),
  };
}
