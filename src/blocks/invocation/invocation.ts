/**
 * Service invocation, both halves: `invoke` on the caller's side, `receive` on the callee's. Knows neither HTTP nor
 * gRPC; a request and its answer are the mesh's.
 */
import { hostname, networkInterfaces } from "node:os";
import { isMeshError, type Caller, type MeshRequest, type MeshResponse } from "../../../mesh/index.ts";
import type { BlockHost } from "../block.ts";
import { httpHeaders } from "./app-headers.ts";
import { ApiError } from "../../api/errors.ts";
import { invokeFailed } from "./errors.ts";
import { External } from "./external.ts";
import { asSentOn, eventStream, refusal } from "./streamed.ts";
import { type AppTarget, parseAppId } from "./target.ts";
import { describeAnswer, serverSpan, traced, withBinaryTrace } from "./trace.ts";

/** Tries after the first, and the wait between them, when a known app has no instance to answer (Dapr's policy). */
const maxRetries = 3;
const retryWaitMs = 1_000;
/** After NATS came back, everybody reconnects and announces within this time, ms. */
const gatheringMs = 5_000;
/** Forwarding header sets remembered, one per called app. */
const maxRemembered = 1_000;

export class Invocation {
  readonly #host: BlockHost;
  readonly #external: External;
  readonly #forwarded: readonly string[];
  /** Monotonic time of the last reconnect to NATS. */
  #backSinceMs = Number.NEGATIVE_INFINITY;
  #met: boolean;
  readonly #identityByCaller = new Map<string, readonly string[]>();
  readonly #sent;
  readonly #received;
  readonly #answerSent;
  readonly #answerReceived;
  readonly #latency;

  constructor(host: BlockHost) {
    this.#host = host;
    this.#external = new External(host.httpEndpoints, host.options, host.clock);
    this.#met = host.mesh.status().connected;
    host.mesh.onStatus((status) => {
      if (status.connected && this.#met) this.#backSinceMs = host.clock.monotonicMs();
      this.#met ||= status.connected;
    });
    this.#forwarded = forwardingHeaders(host.options.hostIp ?? hostAddress());
    const { metrics } = host;
    const name = "runtime_service_invocation";
    this.#sent = metrics.count(`${name}_req_sent_total`, "Requests sent to other apps.", [
      "dst_app_id",
      "type",
    ]);
    this.#received = metrics.count(`${name}_req_recv_total`, "Requests received from other apps.", [
      "src_app_id",
    ]);
    this.#answerSent = metrics.count(`${name}_res_sent_total`, "Answers sent.", ["dst_app_id", "status"]);
    this.#answerReceived = metrics.count(`${name}_res_recv_total`, "Answers received.", [
      "src_app_id",
      "status",
      "type",
    ]);
    this.#latency = metrics.latency(`${name}_res_recv_latency_ms`, "Time to an answer, ms.", [
      "src_app_id",
      "status",
    ]);
  }

  /**
   * Calls what an id means (HTTP endpoint, URL, or app, in this order) and resolves with whatever it answers, errors of
   * the app included. Throws ApiError when nobody answered.
   */
  async invoke(id: string, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const external = this.#external.find(id);
    if (external !== undefined) return this.#invokeExternal(id, external, request, signal);
    const { appId, namespace } = this.#host.options;
    const target = parseAppId(id, namespace);
    const local = target.app === appId && target.namespace === namespace;
    return local ? this.#invokeLocal(target, request, signal) : this.#invokeRemote(target, request, signal);
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
    this.#received(caller.app);
    const { app, options, tracer } = this.#host;
    if (app.protocol === "none") throw new Error("app channel is not initialized");
    if (app.protocol === "http") checkVerb(request.verb);
    const span = tracer === undefined ? undefined : serverSpan(tracer, options.appId, request);
    try {
      const headers = this.#nameCaller(this.#forApp(request), caller);
      if (span !== undefined) traced(headers, span, app.protocol);
      const response = await app.invoke({ ...request, headers }, signal);
      this.#answerSent(caller.app, statusLabel(response));
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

  /** Ends connections to servers outside. */
  close(): Promise<void> {
    return this.#external.close();
  }

  async #invokeExternal(
    id: string,
    external: ReturnType<External["find"]> & object,
    request: MeshRequest,
    signal: AbortSignal,
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

  async #invokeLocal(target: AppTarget, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const { app } = this.#host;
    if (app.protocol === "none")
      throw invokeFailed(target.id, "cannot invoke local endpoint: app channel not initialized");
    try {
      if (app.protocol === "http") checkVerb(request.verb);
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

  async #invokeRemote(target: AppTarget, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const { clock, mesh } = this.#host;
    const startMs = clock.monotonicMs();
    const { body } = request;
    // What cannot be sent twice is not tried twice, although nobody has received it: as with Dapr.
    const streaming = !(body instanceof Uint8Array) && body.length === undefined;
    this.#sent(target.app, streaming ? "streaming" : "unary");
    const options = { app: target.app, namespace: target.namespace, timeoutMs: 0, signal };
    const headers = [...request.headers, ...this.#forwarded];
    const headed = { ...request, headers, body: asSentOn(body) };
    for (let tries = 0; ; tries++) {
      try {
        const response = eventStream(target, request, await mesh.call(headed, options));
        const status = statusLabel(response);
        this.#answerReceived(target.app, status, "unary");
        this.#latency(clock.monotonicMs() - startMs, target.app, status);
        return response;
      } catch (error) {
        // Only a request that nobody received may be sent again.
        const refused = streaming ? refusal(body) : undefined;
        if (refused !== undefined) throw invokeFailed(target.id, refused.message, error);
        if (streaming || !isMeshError(error, "no-responders")) throw this.#failure(target, error, 0);
        const known = await this.#isKnown(target);
        if (tries === maxRetries || !(known || this.#isGathering()))
          throw this.#failure(target, error, known ? tries : 0);
        await clock
          .sleep(retryWaitMs, signal)
          .catch(() => Promise.reject(this.#failure(target, error, tries)));
      }
    }
  }

  /** NATS came back a moment ago: the others may still be on their way. */
  #isGathering(): boolean {
    return this.#host.clock.monotonicMs() - this.#backSinceMs < gatheringMs;
  }

  /** Presence tells an app whose instances are coming or going from one that does not exist. */
  async #isKnown(target: AppTarget): Promise<boolean> {
    const entries = await this.#host.mesh.presence(target).catch(() => []);
    return entries.length > 0;
  }

  #failure(target: AppTarget, error: unknown, retries: number): Error {
    if (error instanceof ApiError) return error;
    const text = textOf(error);
    if (isMeshError(error, "no-responders")) {
      if (retries === 0) return invokeFailed(target.id, `couldn't find service: ${target.app}`, error);
      const reason = `rpc error: code = Unavailable desc = ${text}`;
      return invokeFailed(
        target.id,
        `failed to invoke target ${target.app} after ${retries} retries. Error: ${reason}`,
        error,
      );
    }
    if (isMeshError(error, "timeout", "interrupted", "disconnected", "closed")) {
      return invokeFailed(target.id, `rpc error: code = Unavailable desc = ${text}`, error);
    }
    if (isMeshError(error, "too-large")) {
      return invokeFailed(target.id, `rpc error: code = ResourceExhausted desc = ${text}`, error);
    }
    return invokeFailed(target.id, `rpc error: code = Internal desc = ${text}`, error);
  }

  /** The caller as the NATS subject names it; whatever a client wrote under these names is dropped. */
  #nameCaller(headers: readonly string[], caller: Caller): string[] {
    const kept: string[] = [];
    for (let i = 0; i + 1 < headers.length; i += 2) {
      if (!identityHeaders.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
    }
    for (const item of this.#identityOf(caller)) kept.push(item);
    return kept;
  }

  #identityOf(caller: Caller): readonly string[] {
    const key = `${caller.namespace}\u0000${caller.app}`;
    let added = this.#identityByCaller.get(key);
    if (added === undefined) {
      const names = [caller.namespace, caller.app, this.#host.options.appId];
      added = [...identityHeaders].flatMap((name, i) => [name, names[i]!]);
      if (this.#identityByCaller.size >= maxRemembered) this.#identityByCaller.clear();
      this.#identityByCaller.set(key, added);
    }
    return added;
  }
}

/** A gRPC caller may leave the verb out (empty) or say NONE; only a gRPC app can do with that. */
function checkVerb(verb: string): void {
  if (verb === "") throw new Error("missing HTTP extension field");
  if (verb === "NONE" || verb === "CONNECT") throw new Error("invalid HTTP verb");
}

const identityHeaders = new Set(["dapr-caller-namespace", "dapr-caller-app-id", "dapr-callee-app-id"]);

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

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
