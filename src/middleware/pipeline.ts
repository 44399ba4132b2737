/**
 * The handlers of one pipeline in their listed order. Which component a handler means is looked up with every request,
 * so that one that is loaded again, or later, takes its place at once.
 */
import { ApiError } from "../api/errors.ts";
import type { PipelineHandler } from "../config/kinds/configuration.ts";
import { stackOf } from "../lib/thrown.ts";
import type { Log } from "../telemetry/log.ts";
import type { Middleware, MiddlewareReply, MiddlewareRequest, Next } from "./port.ts";
import { brokenReply, isTunnel } from "./reply.ts";

/** A middleware component that is loaded now. */
export type LoadedMiddleware = {
  readonly resource: { readonly type: string; readonly version: string };
  readonly port: Middleware;
};

export type PipelineInit = {
  /** Where it stands in the Configuration, for the log: `httpPipeline` or `appHttpPipeline`. */
  readonly name: string;
  readonly handlers: readonly PipelineHandler[];
  /** The component of a name; undefined when none is loaded. */
  readonly find: (name: string) => LoadedMiddleware | undefined;
  readonly log: Log;
};

export class Pipeline {
  readonly #init: PipelineInit;
  readonly #told = new Set<PipelineHandler>();

  constructor(init: PipelineInit) {
    this.#init = init;
  }

  /** Logs which handlers have no component any more, since their requests pass unchecked. */
  warnSkipped(): void {
    const { name, handlers, log } = this.#init;
    for (const handler of handlers) {
      const known = this.#told.delete(handler);
      if (this.#loaded(handler) !== undefined) continue;
      this.#told.add(handler);
      if (known) continue;
      const { name: own, type, version } = handler;
      log.warn(
        `${name}: handler ${own} (${type}/${version}) is skipped: no component of this name, type and version is ` +
          `loaded; add it to the resources, or take the handler out`,
      );
    }
  }

  /** Runs a request through all handlers, then `last`. Rejects only with what `last` throws, or with ApiError. */
  async run(request: MiddlewareRequest, last: Next): Promise<MiddlewareReply> {
    let answered: MiddlewareReply | undefined;
    let reply: MiddlewareReply;
    try {
      reply = await this.#from(0, request, async () => (answered = await last()));
    } catch (error) {
      discard(answered);
      throw error;
    }
    if (answered === undefined || reply.body === answered.body) return reply;
    if (isTunnel(answered) && isTunnel(reply)) return { ...reply, body: answered.body };
    discard(answered);
    return reply;
  }

  async #from(index: number, request: MiddlewareRequest, last: Next): Promise<MiddlewareReply> {
    const { handlers } = this.#init;
    for (let i = index; i < handlers.length; i++) {
      const middleware = this.#loaded(handlers[i]!);
      if (middleware !== undefined) return this.#handle(middleware, i, request, last);
    }
    return last();
  }

  async #handle(
    middleware: Middleware,
    index: number,
    request: MiddlewareRequest,
    last: Next,
  ): Promise<MiddlewareReply> {
    let passedOn: { readonly error: unknown } | undefined;
    const next = async (): Promise<MiddlewareReply> => {
      try {
        return await this.#from(index + 1, request, last);
      } catch (error) {
        passedOn = { error };
        throw error;
      }
    };
    try {
      return await middleware.handle(request, next);
    } catch (error) {
      if (passedOn?.error === error || error instanceof ApiError) throw error;
      const text = stackOf(error);
      this.#init.log.error(`middleware ${this.#init.handlers[index]!.name} failed: ${text}`);
      return brokenReply();
    }
  }

  #loaded({ name, type, version }: PipelineHandler): Middleware | undefined {
    const loaded = this.#init.find(name);
    if (loaded === undefined || loaded.resource.type !== type) return undefined;
    // A component without a version is of the first one.
    return (loaded.resource.version || "v1") === version ? loaded.port : undefined;
  }
}

/** Does nothing to a body that was read. */
function discard(reply: MiddlewareReply | undefined): void {
  if (reply === undefined || reply.body instanceof Uint8Array) return;
  reply.body.cancel(new Error("a middleware answers in its place"));
}
