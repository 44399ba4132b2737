/**
 * A user's app as an HTTP server inside the test: records what it is asked, answers as programmed per path, tells the
 * sidecar its subscriptions, and fails on command.
 */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { addWitness } from "./cleanup.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./ports.ts";

/** A request as the app got it. */
export type AppRequest = {
  readonly method: string;
  /** Path as on the wire, without query. */
  readonly path: string;
  /** Raw query without `?`. */
  readonly query: string;
  readonly headers: IncomingMessage["headers"];
  /** Names and values as they came, repeated ones too. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  readonly atMs: number;
  json<T = unknown>(): T;
};

/** What to answer. A string or bytes go as they are, other bodies as JSON. */
export type AppReply = {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: unknown;
};

/** Answers a request; nothing means 200 without a body. A throw is answered with 500. May take any time. */
export type AppHandler = (
  request: AppRequest,
) => AppReply | undefined | void | Promise<AppReply | undefined | void>;

/** One entry of GET /dapr/subscribe. */
export type AppSubscription = {
  readonly pubsubname: string;
  readonly topic: string;
  readonly route?: string;
  readonly routes?: {
    readonly rules?: readonly { match: string; path: string }[];
    readonly default?: string;
  };
  readonly metadata?: Readonly<Record<string, string>>;
  readonly deadLetterTopic?: string;
  readonly bulkSubscribe?: {
    readonly enabled: boolean;
    readonly maxMessagesCount?: number;
    readonly maxAwaitDurationMs?: number;
  };
};

/**
 * - `status`: every request is answered with this status (500) and reaches no handler;
 * - `hang`: requests are taken and never answered until `heal`;
 * - `reset`: connections are broken when a request arrives;
 * - `refuse`: nothing listens on the port.
 */
export type AppFailure = "status" | "hang" | "reset" | "refuse";

export type App = AsyncDisposable & {
  readonly port: number;
  readonly url: string;
  /** Everything asked so far but for GET /dapr/*, oldest first. At most 100,000 are kept. */
  readonly requests: readonly AppRequest[];
  /** Requests of one path. */
  requestsTo(path: string): AppRequest[];
  /** Waits until at least `count` requests of a path came and gives them. */
  received(path: string, count: number, timeoutMs?: number): Promise<AppRequest[]>;
  /** Programs `/path` or `VERB /path`; replaces what was there. A path ending in `*` matches what begins so. */
  on(route: string, handler: AppHandler): void;
  /** Adds a subscription and the handler of its route. The sidecar reads the list once, when the app gets ready. */
  subscribe(subscription: AppSubscription, handler?: AppHandler): void;
  fail(how: AppFailure, status?: number): Promise<void>;
  heal(): Promise<void>;
};

export type AppOptions = {
  readonly port?: number;
  readonly routes?: Readonly<Record<string, AppHandler>>;
  readonly subscriptions?: readonly AppSubscription[];
  /** Answers what no route matches; 404 when not given. */
  readonly fallback?: AppHandler;
};

const MAX_REQUESTS = 100_000;

type State = {
  readonly routes: Map<string, AppHandler>;
  readonly subscriptions: AppSubscription[];
  readonly requests: AppRequest[];
  readonly fallback: AppHandler;
  failure: AppFailure | undefined;
  failureStatus: number;
  readonly hanging: Set<() => void>;
};

/** Starts an app on a free loopback port. */
export async function startApp(options: AppOptions = {}): Promise<App> {
  const port = options.port ?? (await freePort());
  const state: State = {
    routes: new Map(Object.entries(options.routes ?? {})),
    subscriptions: [...(options.subscriptions ?? [])],
    requests: [],
    fallback: options.fallback ?? (() => ({ status: 404 })),
    failure: undefined,
    failureStatus: 500,
    hanging: new Set(),
  };
  const server = createServer((incoming, outgoing) => void serve(state, incoming, outgoing));
  // The sidecar keeps its connections; a test must not race with the default end of idle ones after 5 s.
  server.keepAliveTimeout = 120_000;
  await listen(server, port);
  let disposed = false;
  addWitness({ name: `app on port ${port}`, logs: () => summary(state.requests), disposed: () => disposed });
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    requests: state.requests,
    ...observation(state),
    ...programming(state),
    ...failing(state, server, port),
    async [Symbol.asyncDispose]() {
      disposed = true;
      release(state);
      await close(server);
    },
  };
}

function observation(state: State): Pick<App, "requestsTo" | "received"> {
  const requestsTo = (path: string): AppRequest[] => state.requests.filter((it) => it.path === path);
  return {
    requestsTo,
    received(path, count, timeoutMs = 10_000) {
      const attempt = (): AppRequest[] => {
        const found = requestsTo(path);
        if (found.length < count)
          throw new Error(`${found.length} of ${count} requests to ${path} have come`);
        return found;
      };
      return eventually(attempt, { timeoutMs });
    },
  };
}

function programming(state: State): Pick<App, "on" | "subscribe"> {
  return {
    on: (route, handler) => void state.routes.set(route, handler),
    subscribe(subscription, handler) {
      state.subscriptions.push(subscription);
      const route = subscription.route ?? subscription.routes?.default;
      if (route !== undefined) state.routes.set(`POST ${route}`, handler ?? (() => undefined));
    },
  };
}

function failing(state: State, server: Server, port: number): Pick<App, "fail" | "heal"> {
  return {
    async fail(how, status = 500) {
      state.failure = how;
      state.failureStatus = status;
      if (how === "refuse") await close(server);
    },
    async heal() {
      const before = state.failure;
      state.failure = undefined;
      release(state);
      if (before === "refuse") await listen(server, port);
    },
  };
}

/** Lets requests that hang go on, to be answered as programmed. */
function release(state: State): void {
  for (const go of state.hanging) go();
  state.hanging.clear();
}

async function serve(state: State, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  try {
    const request = await read(incoming);
    if (state.failure === "reset") return void incoming.socket.resetAndDestroy();
    if (state.failure === "hang") await new Promise<void>((go) => state.hanging.add(go));
    if (state.failure === "status")
      return send(outgoing, { status: state.failureStatus, body: "failing on command" });
    if (request.path === "/dapr/subscribe" && !state.routes.has(request.path)) {
      return send(outgoing, { body: state.subscriptions });
    }
    if (!request.path.startsWith("/dapr/") && state.requests.length < MAX_REQUESTS)
      state.requests.push(request);
    send(outgoing, (await handlerOf(state, request)(request)) ?? {});
  } catch (error) {
    send(outgoing, { status: 500, body: error instanceof Error ? error.message : String(error) });
  }
}

function handlerOf(state: State, request: AppRequest): AppHandler {
  const exact = state.routes.get(`${request.method} ${request.path}`) ?? state.routes.get(request.path);
  if (exact !== undefined) return exact;
  for (const [route, handler] of state.routes) {
    const path = route.slice(route.indexOf("/"));
    const verb = route.slice(0, route.indexOf("/")).trim();
    if (!path.endsWith("*") || (verb !== "" && verb !== request.method)) continue;
    if (request.path.startsWith(path.slice(0, -1))) return handler;
  }
  return state.fallback;
}

async function read(incoming: IncomingMessage): Promise<AppRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const [path = "/", ...query] = (incoming.url ?? "/").split("?");
  return {
    method: incoming.method ?? "GET",
    path,
    query: query.join("?"),
    headers: incoming.headers,
    rawHeaders: incoming.rawHeaders,
    body,
    atMs: Date.now(),
    json: <T>() => JSON.parse(body.toString("utf8")) as T,
  };
}

function send(outgoing: ServerResponse, reply: AppReply): void {
  if (outgoing.headersSent || outgoing.destroyed) return;
  const plain =
    reply.body === undefined || typeof reply.body === "string" || reply.body instanceof Uint8Array;
  const headers = { ...(plain ? {} : { "content-type": "application/json" }), ...reply.headers };
  outgoing.writeHead(reply.status ?? 200, headers);
  outgoing.end(plain ? reply.body : JSON.stringify(reply.body));
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function summary(requests: readonly AppRequest[]): string {
  return requests.map((it) => `${it.method} ${it.path}?${it.query} (${it.body.length} bytes)`).join("\n");
}
