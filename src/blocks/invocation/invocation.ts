/**
 * Service invocation, both halves: `invoke` on the caller's side, `receive` on the callee's. Knows neither HTTP nor
 * gRPC; a request and its answer are the mesh's.
 */
import { hostname, networkInterfaces } from "node:os";
import { readGrpcCaller } from "../../api/grpc-caller.ts";
import { isMeshError, type Caller, type MeshRequest, type MeshResponse } from "../../../mesh/index.ts";
import type { HttpEndpoint } from "../../config/http-endpoints.ts";
import type { BlockHost } from "../block.ts";
import { upgradeName } from "../../api/upgrade.ts";
import { headerValue } from "../../app/headers.ts";
import type { AccessControl } from "./access-control.ts";
import { httpHeaders } from "./app-headers.ts";
import { ApiError, GrpcCode, grpcStatusText } from "../../api/errors.ts";
import type { ExternalTarget } from "../../app/external.ts";
import { Waits } from "../../resiliency/retry.ts";
import { denied, invalidArgument, invokeFailed } from "./errors.ts";
import { External } from "./external.ts";
import { type InvokeCall, invokeUnder } from "./policy.ts";
import { asSentOn, eventStream, refusal } from "./streamed.ts";
import type { Peers } from "./peers.ts";
import { type AppTarget, parseAppId } from "./target.ts";
import { describeAnswer, serverSpan, traced, withBinaryTrace } from "./trace.ts";
import { textOf } from "../../lib/thrown.ts";
import { illReason, notUp, type Whereabouts } from "./unready.ts";

export class Invocation {
  readonly #host: BlockHost;
  readonly #external: External;
  readonly #forwarded: readonly string[];
  readonly #peers: Peers;
  readonly #access: AccessControl;

  constructor(host: BlockHost, peers: Peers, access: AccessControl) {
    this.#host = host;
    this.#access = access;
    this.#peers = peers;
    this.#external = new External(host);
    this.#forwarded = forwardingHeaders(host.options.hostIp ?? hostAddress());
  }

  /**
   * Calls what an id means (HTTP endpoint, URL, or app, in this order), under the policy for it, and resolves with
   * whatever it answers, errors of the app included. Throws ApiError when nobody answered.
   */
  async invoke(id: string, request: MeshRequest, call: InvokeCall): Promise<MeshResponse> {
    const { policies, options } = this.#host;
    const external = this.#external.find(id);
    if (external !== undefined) {
      const policy = policies.app(external.key, external.baseUrl);
      if (policy === undefined) return this.#invokeExternal(id, external, request, call);
      return invokeUnder(policy, id, request, call, (again, now) =>
        this.#invokeExternal(id, external, again, now),
      );
    }
    const target = parseAppId(id, options.namespace);
    const policy = policies.app(id, request.path);
    if (policy === undefined) return this.#invokeApp(target, request, call);
    return invokeUnder(policy, id, request, call, (again, now) => this.#invokeApp(target, again, now));
  }

  /**
   * The token that opened this sidecar's own API is not for the app; without token auth it is the caller's business.
   */
  withoutOwnToken(headers: string[]): string[] {
    if (this.#host.options.api.apiToken === undefined) return headers;
    for (let i = headers.length - 2; i >= 0; i -= 2) {
      if (headers[i]!.toLowerCase() === "dapr-api-token") headers.splice(i, 2);
    }
    return headers;
  }

  /** An app that answers with an error counts as one of the API, as with Dapr. */
  countRefusal(): void {
    this.#host.metrics.errorCode("ERR_DIRECT_INVOKE");
  }

  /** Answers a call that arrived over the mesh. An Error becomes the caller's `err` text. */
  async receive(request: MeshRequest, caller: Caller, signal: AbortSignal): Promise<MeshResponse> {
    this.#peers.traffic.received(caller.app);
    const { app, options, tracing } = this.#host;
    if (app.protocol === "none") throw new Error("app channel is not initialized");
    this.#admit(request, caller);
    const span = tracing.tracer && serverSpan(tracing.tracer, options.appId, request);
    try {
      if (app.protocol === "http") checkVerb(request.verb);
      else refuseUpgrade(request);
      const headers = this.#peers.nameCaller(this.#forApp(request), caller);
      if (span !== undefined) traced(headers, span, app.protocol);
      const response = await app.invoke({ ...request, headers }, signal);
      this.#peers.traffic.answerSent(caller.app, statusLabel(response));
      if (span?.recording === true) describeAnswer(span, response);
      return response;
    } catch (error) {
      this.#host.log.debug(`call of ${caller.app} to ${options.appId} failed: ${String(error)}`);
      span?.fail(textOf(error));
      throw new Error(`error invoking app channel: ${textOf(error)}`, { cause: error });
    } finally {
      span?.end();
    }
  }

  /** Throws for a caller that may not do this. What counts is what the app would see. */
  #admit(request: MeshRequest, caller: Caller): void {
    const grpc = this.#host.app.protocol === "grpc";
    const own = grpc ? readGrpcCaller(request.headers)?.method : undefined;
    this.#access.check(
      caller,
      own ?? request.path.replace(/^\//, ""),
      grpc ? undefined : request.verb || "NONE",
    );
  }

  /** Named servers outside from here on. */
  setEndpoints(endpoints: readonly HttpEndpoint[]): void {
    this.#external.set(endpoints);
  }

  /** Ends connections to servers outside. */
  close(): Promise<void> {
    return this.#external.close();
  }

  async #invokeExternal(
    id: string,
    external: ExternalTarget,
    request: MeshRequest,
    { signal }: InvokeCall,
  ): Promise<MeshResponse> {
    try {
      checkVerb(request.verb);
      return await this.#external.invoke(
        external,
        { ...request, headers: httpHeaders(request.headers) },
        signal,
      );
    } catch (error) {
      throw invokeFailed(id, textOf(error), error);
    }
  }

  #invokeApp(target: AppTarget, request: MeshRequest, call: InvokeCall): Promise<MeshResponse> {
    const { appId, namespace } = this.#host.options;
    const local = target.app === appId && target.namespace === namespace;
    return local
      ? this.#invokeLocal(target, request, call.signal)
      : this.#invokeRemote(target, request, call);
  }

  async #invokeLocal(target: AppTarget, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const { app } = this.#host;
    if (app.protocol === "none")
      throw invokeFailed(target.id, "cannot invoke local endpoint: app channel not initialized");
    try {
      if (app.protocol === "http") checkVerb(request.verb);
      else refuseUpgrade(request);
      const headers = this.#forApp(request);
      const local = app.protocol === "grpc" ? withBinaryTrace(headers) : headers;
      return await app.invoke({ ...request, headers: local }, signal);
    } catch (error) {
      throw invokeFailed(target.id, textOf(error), error);
    }
  }

  /** A gRPC app gets the caller's headers or metadata as they are (app/grpc-invoke.ts). */
  #forApp(request: MeshRequest): readonly string[] {
    return this.#host.app.protocol === "http" ? httpHeaders(request.headers) : request.headers;
  }

  async #invokeRemote(
    target: AppTarget,
    request: MeshRequest,
    { signal, repeatable }: InvokeCall,
  ): Promise<MeshResponse> {
    const { clock, mesh } = this.#host;
    const startMs = clock.monotonicMs();
    const { body } = request;
    const streaming = !(body instanceof Uint8Array) && body.length === undefined;
    const sidecarsOnly = streaming && headerValue(request.headers, upgradeName) !== undefined;
    this.#peers.traffic.sent(target.app, streaming ? "streaming" : "unary");
    const options = { app: target.app, namespace: target.namespace, timeoutMs: 0, signal, sidecarsOnly };
    const headers = [...request.headers, ...this.#forwarded];
    const headed = { ...request, headers, body: asSentOn(body) };
    let waits: Waits | undefined;
    for (let tries = 0; ; tries++) {
      try {
        const response = eventStream(target, request, await mesh.call(headed, options));
        const status = statusLabel(response);
        this.#peers.traffic.answerReceived(target.app, status, "unary");
        this.#peers.traffic.latency(clock.monotonicMs() - startMs, target.app, status);
        return response;
      } catch (error) {
        const refused = streaming ? refusal(body) : undefined;
        if (refused !== undefined) throw invokeFailed(target.id, refused.message, error);
        // Only a request that nobody received may be sent again, and only if it can be: as with Dapr.
        if (!isMeshError(error, "no-responders")) throw this.#failure(target, error, 0);
        const where = await this.#peers.whereabouts(target);
        if (where.state === "ill") throw invokeFailed(target.id, illReason(), error);
        waits ??= this.#builtInWaits(target);
        const again = repeatable && (where.state !== "unknown" || this.#peers.gathering);
        const waitMs = again ? waits?.next() : undefined;
        if (waitMs === undefined) return this.#givenUp(target, where, request, error, tries);
        await clock.sleep(waitMs, signal).catch(() => Promise.reject(this.#failure(target, error, tries)));
      }
    }
  }

  /** What a call ends with that nobody took. */
  #givenUp(
    target: AppTarget,
    where: Whereabouts,
    request: MeshRequest,
    error: unknown,
    retries: number,
  ): MeshResponse {
    if (where.state !== "starting")
      throw this.#failure(target, error, where.state === "unknown" ? 0 : retries);
    const answer = notUp(where.at, request);
    if (typeof answer === "string") throw invokeFailed(target.id, answer, error);
    return answer;
  }

  /** Retries without any configuration; an app that has an entry of its own gets what stands there. */
  #builtInWaits(target: AppTarget): Waits | undefined {
    const { policies, clock, random } = this.#host;
    if (policies.targetsApp(target.app)) return undefined;
    return new Waits(policies.builtIn("DaprBuiltInServiceRetries"), clock, random);
  }

  #failure(target: AppTarget, error: unknown, retries: number): Error {
    if (error instanceof ApiError) return error;
    const text = textOf(error);
    if (isMeshError(error, "no-responders")) {
      if (retries === 0) return invokeFailed(target.id, `couldn't find service: ${target.app}`, error);
      const reason = grpcStatusText(GrpcCode.Unavailable, text);
      return invokeFailed(
        target.id,
        `failed to invoke target ${target.app} after ${retries} retries. Error: ${reason}`,
        error,
      );
    }
    if (isMeshError(error, "timeout", "interrupted", "disconnected", "closed")) {
      return invokeFailed(target.id, grpcStatusText(GrpcCode.Unavailable, text), error);
    }
    if (isMeshError(error, "too-large")) {
      return invokeFailed(target.id, grpcStatusText(GrpcCode.ResourceExhausted, text), error);
    }
    if (isMeshError(error, "denied")) return denied(target.id, text, error);
    return invokeFailed(target.id, grpcStatusText(GrpcCode.Internal, text), error);
  }
}

/** A gRPC caller may leave the verb out (empty) or say NONE; only a gRPC app can do with that. */
function checkVerb(verb: string): void {
  if (verb === "") throw new Error(invalidArgument("missing HTTP extension field"));
  if (verb === "NONE" || verb === "CONNECT") throw new Error(invalidArgument("invalid HTTP verb"));
}

function refuseUpgrade({ headers }: MeshRequest): void {
  if (headerValue(headers, upgradeName) === undefined) return;
  throw new Error("a gRPC app takes no WebSocket; only apps with --app-protocol http or https do");
}

function forwardingHeaders(address: string): readonly string[] {
  const name = hostname();
  const shown = address.includes(":") ? `"[${address}]"` : address;
  return [
    "X-Forwarded-For",
    address,
    "X-Forwarded-Host",
    name,
    "Forwarded",
    `for=${shown};by=${shown};host=${name}`,
  ];
}

/** First address of this host that others can reach; loopback when there is none. */
function hostAddress(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const address of addresses ?? [])
      if (!address.internal && address.family === "IPv4") return address.address;
  }
  return "127.0.0.1";
}

function statusLabel(response: MeshResponse): string {
  return String(response.grpc?.code ?? response.status);
}
