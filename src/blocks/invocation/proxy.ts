/**
 * Calls to services that the sidecar does not have: which app they are for, what of their metadata goes on, and the way
 * there, to the own app or over the mesh. The bytes of the messages are nobody's business here.
 */
import { isTruthy } from "../../lib/truthy.ts";
import {
  isMeshError,
  type BodyStream,
  type Caller,
  type CallOptions,
  type MeshRequest,
  type MeshResponse,
} from "../../../mesh/index.ts";
import { ApiError, GrpcCode } from "../../api/errors.ts";
import type { ProxiedCall } from "../../api/grpc.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { passingStatus } from "../../api/mesh-status.ts";
import { encodeTimeout, relayedPairs, sendablePairs } from "../../lib/grpc-wire.ts";
import { grpcTracePairs } from "../../telemetry/tracing/headers.ts";
import type { BlockHost } from "../block.ts";
import { unhealthyApp } from "../../app/health.ts";
import type { AccessControl } from "./access-control.ts";
import { noInstance, noProxyTarget, unknownProxyTarget } from "./errors.ts";
import { callUnder, openUnder, type Send } from "./proxy-policy.ts";
import { type Peers, withoutIdentity } from "./peers.ts";
import { type AppTarget, parseAppId } from "./target.ts";
import { describeAnswer, proxySpan } from "./trace.ts";
import { refusedText, type Whereabouts } from "./unready.ts";

/** Verb of a proxied call in the mesh; no HTTP caller can have it, since unknown verbs become POST. */
export const proxyVerb = "GRPC";

/** As for other calls: tries after the first, and the wait between them, when nobody of a known app is there. */
const maxRetries = 3;
const retryWaitMs = 1_000;

export class Proxy {
  readonly #host: BlockHost;
  readonly #peers: Peers;
  readonly #access: AccessControl;

  constructor(host: BlockHost, peers: Peers, access: AccessControl) {
    this.#host = host;
    this.#peers = peers;
    this.#access = access;
  }

  /** As GrpcProxy says (api/grpc.ts). */
  async call(call: ProxiedCall): Promise<MeshResponse> {
    const { appId, namespace } = this.#host.options;
    const { path, body, signal } = call;
    const { id, streaming } = readProxyTarget(call, this.#host.tracing.tracer !== undefined);
    const target = proxyTarget(id, namespace);
    const request = { verb: proxyVerb, path, query: "", headers: outgoing(call), body };
    if (target.app === appId && target.namespace === namespace) {
      this.#admitSelf({ app: appId, namespace }, call);
      return this.#toApp(request, signal);
    }
    // The caller's own values stay first, as with Dapr; the peer's sidecar goes by the last.
    if (call.span !== undefined) request.headers.push(...grpcTracePairs(call.span));
    const policy = this.#host.policies.app(id, path);
    if (policy === undefined) return this.#toPeer(target, request, call, { signal, retries: maxRetries });
    const send: Send = (again, limit, onAccepted) =>
      this.#toPeer(target, again, call, { signal: limit, onAccepted, retries: 0 });
    return (streaming ? openUnder : callUnder)({ policy, id, request, signal, send });
  }

  /** Answers a proxied call that arrived over the mesh. Throws MeshError `denied`. */
  async receive(request: MeshRequest, caller: Caller, signal: AbortSignal): Promise<MeshResponse> {
    const { traffic } = this.#peers;
    traffic.received(caller.app);
    this.#access.check(caller, request.path, undefined);
    const { tracer } = this.#host.tracing;
    const span = tracer === undefined ? undefined : proxySpan(tracer, request);
    const headers = this.#peers.nameCaller(request.headers, caller);
    try {
      const response = await this.#toApp({ ...request, headers }, signal);
      traffic.answerSent(caller.app, String(response.grpc?.code ?? GrpcCode.Unknown));
      if (span?.recording === true) describeAnswer(span, response);
      return response;
    } catch (error) {
      span?.fail(error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      span?.end();
    }
  }

  #toApp(request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    return this.#host.app.proxy({ ...request, headers: withoutToken(request.headers) }, signal);
  }

  /** Calls of this kind are asked about even when the app calls itself. */
  #admitSelf(self: Caller, call: ProxiedCall): void {
    try {
      this.#access.check(self, call.path, undefined);
    } catch (error) {
      throw passingStatus(error);
    }
  }

  async #toPeer(
    target: AppTarget,
    request: MeshRequest,
    call: ProxiedCall,
    { signal, onAccepted, retries }: PeerCall,
  ): Promise<MeshResponse> {
    const { clock, mesh } = this.#host;
    const { traffic } = this.#peers;
    const { app, namespace } = target;
    const startMs = clock.monotonicMs();
    const type = request.body instanceof Uint8Array ? "unary" : "streaming";
    traffic.sent(app, type);
    // The deadline is the client's: the signal ends the call here, and its app has `grpc-timeout`.
    const options: CallOptions = {
      ...{ app, namespace, timeoutMs: 0, signal, sidecarsOnly: true },
      ...(onAccepted === undefined ? {} : { onAccepted }),
    };
    for (let tries = 0; ; tries++) {
      try {
        const response = await mesh.call(withTimeLeft(request, call), options);
        const status = String(response.grpc?.code ?? GrpcCode.Unknown);
        traffic.answerReceived(app, status, type);
        traffic.latency(clock.monotonicMs() - startMs, app, status);
        return asProxied(response);
      } catch (error) {
        // Only a call that nobody received may be sent again.
        if (isMeshError(error, "disconnected")) throw noInstance(error.message, error);
        if (!isMeshError(error, "no-responders")) throw passingStatus(error);
        const where = await this.#peers.whereabouts(target);
        if (where.state === "unknown" && !this.#peers.gathering)
          throw unknownProxyTarget(`couldn't find service: ${app}`, error);
        if (where.state === "ill" || tries === retries) throw noInstance(reasonOf(where, app), error);
        await clock.sleep(retryWaitMs, signal).catch(() => Promise.reject(passingStatus(error)));
      }
    }
  }
}

type PeerCall = {
  readonly signal: AbortSignal;
  readonly onAccepted?: (() => void) | undefined;
  readonly retries: number;
};

function reasonOf(where: Whereabouts, app: string): string {
  if (where.state === "ill") return unhealthyApp().message;
  return where.state === "starting" ? refusedText(where.at) : `no instance of ${app} takes calls`;
}

/** The app that a call names, as written, and whether policies cover no more than the opening of its stream. */
export function readProxyTarget(
  { path, headers }: Pick<ProxiedCall, "path" | "headers">,
  tracing: boolean,
): { readonly id: string; readonly streaming: boolean } {
  const id = first(headers, "dapr-callee-app-id") || first(headers, "dapr-app-id");
  if (id === "") throw noProxyTarget(path, tracing);
  return { id, streaming: isTruthy(first(headers, "dapr-stream")) };
}

/** First value of a metadata name; empty without one. */
function first(headers: readonly string[], name: string): string {
  for (let i = 0; i + 1 < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === name) return headers[i + 1]!;
  return "";
}

/** Like other ids, but what is wrong with one is Unknown here. */
function proxyTarget(id: string, namespace: string): AppTarget {
  try {
    return parseAppId(id, namespace);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    throw unknownProxyTarget(`invalid app id ${id}`, error);
  }
}

/** Metadata and transport headers for the app. Who calls is not for the caller to say. */
function outgoing({ headers }: ProxiedCall): string[] {
  const kept: string[] = [];
  const pairs = sendablePairs(headers);
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    if (!notPassedOn.has(pairs[i]!)) kept.push(pairs[i]!, pairs[i + 1]!);
  }
  return [...withoutIdentity(kept), ...relayedPairs(headers)];
}

/** The token of this sidecar's own API is none of the app's business, nor is the name by which it was called. */
const notPassedOn = new Set(["dapr-app-id", "dapr-api-token"]);

function withoutToken(headers: readonly string[]): readonly string[] {
  if (!headers.includes("dapr-api-token")) return headers;
  return headers.filter((_, i) => headers[i - (i % 2)] !== "dapr-api-token");
}

/** A retry leaves the app less time than the client had given. */
function withTimeLeft(request: MeshRequest, call: ProxiedCall): MeshRequest {
  const leftMs = call.timeLeftMs();
  if (leftMs === undefined) return request;
  const headers = request.headers.map((item, i) =>
    i % 2 === 1 && request.headers[i - 1] === "grpc-timeout" ? encodeTimeout(leftMs) : item,
  );
  return { ...request, headers };
}

/** An instance of another kind may have answered what it took for an ordinary call. */
function asProxied(response: MeshResponse): MeshResponse {
  if (response.grpc !== undefined) return response;
  cancel(response.body);
  throw new GrpcStatusError(
    GrpcCode.Unimplemented,
    "the app's sidecar does not take proxied gRPC calls: it is too old",
  );
}

function cancel(body: Uint8Array | BodyStream): void {
  if (!(body instanceof Uint8Array)) body.cancel(new Error("this answer is not used"));
}
