/**
 * The gRPC port, on node:http2 itself (docs/decisions: no grpc-js): sockets, the shared steps in written order, and
 * the one place that turns a thrown value into a status.
 * Steps of a call: transport checks -> token -> guard -> method table -> deadline -> block -> status -> metrics, log.
 */
import {
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from "node:http2";
import type { Clock } from "../../mesh/index.ts";
import { ApiError, GrpcCode, grpcCodeName, toApiError } from "../api/errors.ts";
import type { GrpcProxy } from "../api/grpc.ts";
import { grpcErrorOfHttp } from "../api/status.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import { encodeBinary, GrpcWireError, isGrpcContentType } from "../lib/grpc-wire.ts";
import { UnsentBytes } from "../lib/http2-unsent.ts";
import { stackOf } from "../lib/thrown.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { isApiToken } from "./api-token.ts";
import { type CallHost, type GrpcStatus, ServerCall, statusError } from "./grpc-call.ts";
import { ProxyIngress } from "./grpc-proxy.ts";
import {
  loadTable,
  type MethodSource,
  type MethodTable,
  type TableMethod,
  unknownText,
} from "./grpc-table.ts";
import { endSpan, type GrpcTracing } from "./grpc-tracing.ts";
import { type ListenTarget, listenOn } from "./listen.ts";

export { ServerCall, statusError } from "./grpc-call.ts";

/** Calls at once on one connection; clients queue further ones themselves. */
const maxStreams = 10_000;
/** What a client may send ahead, bytes: on one stream, and on all streams of a connection together. */
const streamWindowBytes = 256 * 1024;
const sessionWindowBytes = 4 * 1024 * 1024;
/** Memory that the streams of one connection may queue before new ones are refused, MB. */
const maxSessionMb = 512;
/** Resets by clients (cancels) that are fine at once, and then per second; more ends the connection. */
const resetBurst = 20_000;
const resetsPerSecond = 2_000;
const defaultHeaderBytes = 64 * 1024;
/** After the grace, time for the last statuses to leave, ms. */
const flushMs = 50;

/** What a changed Configuration exchanges. */
export type GrpcSteps = {
  readonly apiLogging?: boolean;
  /** Undefined when tracing is off. */
  readonly tracing?: GrpcTracing | undefined;
  /** Runs before every call, also unknown ones; throws ApiError to refuse it. */
  readonly guard?: ((call: ServerCall) => void) | undefined;
};

export type GrpcServerOptions = GrpcSteps & {
  /** Asked once, at the first connection or `warm()`; again only after it failed. */
  readonly methods: MethodSource;
  /** Both ways. */
  readonly maxMessageBytes: number;
  /** Largest header block of a request, bytes; 64 KiB unless given. */
  readonly maxHeaderBytes?: number;
  /** DAPR_API_TOKEN; undefined = open. */
  readonly apiToken?: string | undefined;
  /** Takes calls of services that are not mounted; without it they are Unimplemented. */
  readonly proxy?: GrpcProxy;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
};

export type GrpcServer = {
  /** Exchanges the steps: for calls from here on. */
  set(steps: GrpcSteps): void;
  /** Resolves with the port (0 for a socket file). May be called for several addresses. */
  listen(target: ListenTarget): Promise<number>;
  /** Loads the methods now, so that the first call need not wait. Rejects when that fails. */
  warm(): Promise<void>;
  /** Says GOAWAY, waits for calls in flight up to `graceMs`, then ends them Unavailable and closes. */
  close(graceMs: number): Promise<void>;
};

/** A plaintext HTTP/2 (prior knowledge) gRPC server. Nothing a client sends makes it throw. */
export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  const ingress = new GrpcIngress(options);
  const servers: Http2Server[] = [];
  return {
    set: (steps) => ingress.set(steps),
    async listen(target) {
      const server = ingress.createServer();
      const port = await listenOn(server, target);
      servers.push(server);
      return port;
    },
    warm: async () => void (await ingress.table()),
    close: (graceMs) => ingress.close(servers, graceMs),
  };
}

class GrpcIngress {
  readonly #options: GrpcServerOptions;
  #steps: GrpcSteps;
  readonly #host: CallHost;
  readonly #token: Buffer | undefined;
  readonly #apiLog: Log;
  readonly #calls = new Set<ServerCall>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #proxy: ProxyIngress | undefined;
  #table: MethodTable | undefined;
  #loading: Promise<MethodTable> | undefined;

  constructor(options: GrpcServerOptions) {
    this.#options = options;
    this.#steps = options;
    this.#apiLog = options.log.scope("dapr.runtime.grpc.api-info");
    this.#token = options.apiToken === undefined ? undefined : Buffer.from(options.apiToken);
    const labels = ["grpc_server_method", "grpc_server_status"];
    const { clock, metrics, maxMessageBytes, proxy } = options;
    if (proxy !== undefined) this.#proxy = new ProxyIngress({ proxy, maxMessageBytes });
    const count = metrics.count("grpc_io_server_completed_rpcs", "gRPC calls ended by the server.", labels);
    const latency = metrics.latency(
      "grpc_io_server_server_latency",
      "Latency of gRPC calls at the server, ms.",
      labels,
    );
    const sizes = ["grpc_server_method"];
    const received = metrics.size("grpc_io_server_received_bytes_per_rpc", "Size of requests, bytes.", sizes);
    const sent = metrics.size("grpc_io_server_sent_bytes_per_rpc", "Size of answers, bytes.", sizes);
    const unsent = new UnsentBytes();
    this.#host = {
      maxMessageBytes,
      clock,
      closed: (stream, session) => {
        // The client is asked for a new connection; what runs on this one goes on.
        if (unsent.isTooMuch(session, stream) && !session.closed) session.close();
      },
      ended: (call, code, message) => {
        this.#calls.delete(call);
        endSpan(call, code, message);
        const latencyMs = clock.monotonicMs() - call.startMs;
        const status = codeNames.get(code) ?? grpcCodeName(code);
        count(call.path, status);
        latency(Math.trunc(latencyMs), call.path, status);
        if (call.receivedBytes >= 0) {
          received(call.receivedBytes, call.path);
          sent(call.sentBytes, call.path);
        }
        if (this.#steps.apiLogging === true) this.#logCall(call, code, latencyMs);
      },
    };
  }

  set(steps: GrpcSteps): void {
    this.#steps = steps;
  }

  createServer(): Http2Server {
    const maxHeaderBytes = this.#options.maxHeaderBytes ?? defaultHeaderBytes;
    const settings: ServerOptions = {
      maxSessionMemory: maxSessionMb,
      maxHeaderListPairs: 512,
      streamResetBurst: resetBurst,
      streamResetRate: resetsPerSecond,
      strictSingleValueFields: false,
      settings: {
        maxConcurrentStreams: maxStreams,
        initialWindowSize: streamWindowBytes,
        maxHeaderListSize: maxHeaderBytes,
      },
    };
    const server = createServer(settings);
    server.on("session", (session) => {
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
      session.setLocalWindowSize(sessionWindowBytes);
      this.table().catch(() => {});
    });
    server.on("sessionError", (error) => this.#options.log.debug(`gRPC connection ended: ${error.message}`));
    server.on("stream", (stream, headers, _flags, raw) => this.#accept(stream, headers, raw));
    return server;
  }

  /** The method table; a failed load is tried again at the next call. */
  async table(): Promise<MethodTable> {
    if (this.#table !== undefined) return this.#table;
    this.#loading ??= loadTable(this.#options.methods);
    try {
      this.#table = await this.#loading;
    } catch (error) {
      this.#loading = undefined;
      throw error;
    }
    return this.#table;
  }

  async close(servers: readonly Http2Server[], graceMs: number): Promise<void> {
    const { clock } = this.#options;
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const session of this.#sessions) if (!session.closed) session.close();
    const end = (): void => {
      for (const call of this.#calls)
        call.abort(statusError(GrpcCode.Unavailable, "the sidecar is stopping"));
      last = clock.setTimeout(() => {
        for (const session of this.#sessions) session.destroy();
      }, flushMs);
    };
    let last = Number.isFinite(graceMs) ? clock.setTimeout(end, graceMs) : undefined;
    await Promise.all(closed);
    last?.cancel();
  }

  #accept(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: readonly string[]): void {
    const refusal = transportRefusal(headers);
    if (refusal !== undefined) {
      stream.on("error", () => {});
      stream.resume();
      stream.respond(refusal, { endStream: true });
      return;
    }
    const call = new ServerCall(stream, headers, raw, this.#host);
    this.#calls.add(call);
    try {
      this.#authorize(call);
      this.#steps.guard?.(call);
    } catch (error) {
      void this.#fail(call, error);
      return;
    }
    if (this.#table !== undefined) this.#dispatch(call, this.#table);
    else void this.#dispatchLater(call);
  }

  async #dispatchLater(call: ServerCall): Promise<void> {
    let table: MethodTable;
    try {
      table = await this.table();
    } catch (cause) {
      this.#options.log.error(`loading the gRPC methods failed: ${stackOf(cause)}`);
      return call.end({
        code: GrpcCode.Internal,
        message: "the sidecar could not load its gRPC API; see its log",
      });
    }
    if (!call.ended) this.#dispatch(call, table);
  }

  #dispatch(call: ServerCall, table: MethodTable): void {
    const method = table.methods.get(call.path);
    const { tracing } = this.#steps;
    const proxy = this.#proxy !== undefined && isForeign(call, method, table) ? this.#proxy : undefined;
    try {
      tracing?.begin(call, proxy === undefined && method?.unary !== undefined);
      if (proxy !== undefined) return void this.#pass(call, proxy);
      if (method === undefined)
        return call.end({ code: GrpcCode.Unimplemented, message: unknownText(call.path, table) });
      call.begin();
    } catch (error) {
      return void this.#fail(call, error);
    }
    if (method.unary !== undefined) void this.#unary(call, method, method.unary);
    else if (method.stream !== undefined) void this.#stream(call, method, method.stream);
  }

  async #pass(call: ServerCall, proxy: ProxyIngress): Promise<void> {
    try {
      await proxy.serve(call);
    } catch (error) {
      await this.#fail(call, error);
    }
  }

  async #unary(
    call: ServerCall,
    method: TableMethod,
    handle: NonNullable<TableMethod["unary"]>,
  ): Promise<void> {
    try {
      const request = method.decode(await call.readUnary());
      if (call.ended) return;
      this.#steps.tracing?.request(call, request);
      const answer = await handle(request, call);
      if (!call.ended) call.endUnary(method.encode(answer));
    } catch (error) {
      await this.#fail(call, error);
    }
  }

  async #stream(
    call: ServerCall,
    method: TableMethod,
    handle: NonNullable<TableMethod["stream"]>,
  ): Promise<void> {
    try {
      for await (const message of handle(call.readStream(method.decode), call)) {
        if (call.ended) return;
        await call.sendMessage(method.encode(message));
      }
      call.end({ code: GrpcCode.OK, message: "" });
    } catch (error) {
      await this.#fail(call, error);
    }
  }

  async #fail(call: ServerCall, thrown: unknown): Promise<void> {
    if (call.ended) return;
    if (thrown instanceof ApiError) this.#options.metrics.errorCode(thrown.code);
    const status = await statusOf(thrown).catch((cause: unknown) => {
      this.#options.log.error(`${call.path}: details of the status are lost: ${stackOf(cause)}`);
      return bareStatus(thrown);
    });
    if (thrown instanceof GrpcStatusError)
      for (const [name, value] of flatPairs(thrown.trailers)) call.setWireTrailer(name, value);
    else if (!(thrown instanceof ApiError || thrown instanceof GrpcWireError)) {
      this.#options.log.error(`${call.path}: ${stackOf(thrown)}`);
    } else if (thrown.cause !== undefined) this.#options.log.debug(`${call.path}: ${stackOf(thrown.cause)}`);
    call.end(status);
  }

  #authorize(call: ServerCall): void {
    if (this.#token === undefined) return;
    const given = call.headers["dapr-api-token"];
    if (typeof given !== "string") throw grpcErrorOfHttp(401, "missing api token in request metadata");
    if (!isApiToken(given, this.#token))
      throw grpcErrorOfHttp(401, "authentication error: api token mismatch");
  }

  #logCall(call: ServerCall, code: number, latencyMs: number): void {
    const agent = call.headers["user-agent"];
    this.#apiLog.always("gRPC API Called", {
      method: call.path,
      code,
      duration: Math.trunc(latencyMs),
      ...(agent === undefined ? {} : { useragent: agent }),
    });
  }
}

/** Made once: a name is asked for with every call. */
const codeNames: ReadonlyMap<number, string> = new Map(
  Object.values(GrpcCode).map((code) => [code, grpcCodeName(code)]),
);

/** Whether a call is for an app: its method is neither here nor one of a service that is here. */
function isForeign(call: ServerCall, method: TableMethod | undefined, table: MethodTable): boolean {
  if (method === undefined) return !table.declared.has(call.path);
  return (
    method.yields === true &&
    (call.headers["dapr-app-id"] !== undefined || call.headers["dapr-callee-app-id"] !== undefined)
  );
}

/** HTTP answer for what is no gRPC call at all; undefined when it is one. */
function transportRefusal(headers: IncomingHttpHeaders) {
  const type = headers["content-type"];
  if (headers[":method"] === "POST" && isGrpcContentType(type)) return undefined;
  const isPost = headers[":method"] === "POST";
  return {
    ":status": isPost ? 415 : 405,
    "content-type": "application/grpc",
    "grpc-status": String(isPost ? GrpcCode.InvalidArgument : GrpcCode.Internal),
    "grpc-message": isPost
      ? "this port takes application/grpc only"
      : "this port takes gRPC calls (POST) only",
  };
}

/** The status of a thrown value, with its details in the binary form. */
async function statusOf(thrown: unknown): Promise<GrpcStatus> {
  const status = bareStatus(thrown);
  if (thrown instanceof GrpcStatusError && thrown.details !== undefined) {
    return { ...status, details: encodeBinary(thrown.details) };
  }
  if (thrown instanceof ApiError && thrown.grpcStatus !== undefined) {
    return { ...status, details: encodeBinary(thrown.grpcStatus) };
  }
  if (!(thrown instanceof ApiError) || thrown.grpcDetails.length === 0) return status;
  const { encodeStatus } = await import("../api/status-proto.ts");
  return {
    ...status,
    details: encodeBinary(await encodeStatus(status.code, status.message, thrown.grpcDetails)),
  };
}

function bareStatus(thrown: unknown): GrpcStatus {
  if (thrown instanceof GrpcStatusError || thrown instanceof GrpcWireError) {
    return { code: thrown.code, message: thrown.message };
  }
  const error = toApiError(thrown);
  return { code: error.grpcCode, message: error.message };
}

function* flatPairs(flat: readonly string[]): Generator<[string, string]> {
  for (let i = 0; i + 1 < flat.length; i += 2) yield [flat[i]!, flat[i + 1]!];
}
