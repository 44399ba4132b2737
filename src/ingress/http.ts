/**
 * The HTTP ports of a sidecar: the API port and the public one. The steps of a request stand in http-steps.ts, the
 * connections in http-sockets.ts, replies on the wire in http-reply.ts.
 */
import { pageNotFound } from "../api/api-lists.ts";
import type { HttpCall, HttpReply, HttpRoute } from "../api/http.ts";
import { HttpSockets, type HttpSocketsOptions } from "./http-sockets.ts";
import { HttpIngress, type HttpSteps } from "./http-steps.ts";
import type { ListenTarget } from "./listen.ts";
import { cleanPath, Router } from "./router.ts";

export type HttpServerOptions = HttpSteps & Omit<HttpSocketsOptions, "ingress">;

export type HttpServer = {
  /** Exchanges the steps: for requests from here on, while those under way go on as they began. */
  set(steps: HttpSteps): void;
  /** Resolves with the port (0 for a socket file). Rejects when the address is taken. */
  listen(target: ListenTarget): Promise<number>;
  /** Stops accepting, waits for requests in flight up to `graceMs`, then closes the rest. */
  close(graceMs: number): Promise<void>;
};

/** The API port: `fallback` (service invocation) takes what no route takes. */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  const ingress = new HttpIngress(options);
  const sockets = new HttpSockets({ ...options, ingress });
  return {
    set: (steps) => ingress.set(steps),
    listen: (target) => sockets.listen(target),
    close: (graceMs) => sockets.close(graceMs),
  };
}

/** Steps of the public port: a few routes without token, CORS, middleware and API log; no invocation. */
export function publicSteps(
  parts: Pick<HttpSteps, "clock" | "log" | "metrics">,
  routes: readonly HttpRoute[],
): HttpSteps {
  const router = new Router(routes);
  return {
    ...parts,
    routes,
    fallback: (call) => noRoute(router, call),
    apiToken: undefined,
    apiLogging: { enabled: false, obfuscateUrls: false, omitHealthChecks: false },
  };
}

function noRoute(router: Router, call: HttpCall): HttpReply {
  const verbs = router.verbs(cleanPath(call.rawPath));
  if (verbs.length === 0) return pageNotFound;
  return { status: 405, headers: { Allow: verbs } };
}
