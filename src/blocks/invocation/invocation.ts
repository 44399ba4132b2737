/**
 * Service invocation, both halves: `invoke` on the caller's side, `receive` on the callee's. Knows neither HTTP nor
 * gRPC; a request and its answer are the mesh's.
 */
import { hostname, networkInterfaces } from "node:os";
import {
  BodyQueue,
  type Caller,
  failedBody,
  isMeshError,
  type MeshRequest,
  type MeshResponse,
} from "../../../mesh/index.ts";
import { BodyTooLarge } from "../../api/http.ts";
import { headerValue } from "../../app/headers.ts";
import type { BlockHost } from "../block.ts";
import { ApiError } from "../../api/errors.ts";
import { invokeFailed } from "./errors.ts";
import type { Target } from "./target.ts";

/** Tries after the first, and the wait between them, when a known app has no instance to answer (Dapr's policy). */
const maxRetries = 3;
const retryWaitMs = 1_000;
/** Forwarding header sets remembered, one per called app. */
const maxRemembered = 1_000;

export class Invocation {
  readonly #host: BlockHost;
  readonly #forwarded: readonly string[];
  readonly #addedByCallee = new Map<string, readonly string[]>();
  readonly #sent;
  readonly #received;
  readonly #answerSent;
  readonly #answerReceived;
  readonly #latency;

  constructor(host: BlockHost) {
    this.#host = host;
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
   * Calls an app and resolves with whatever it answers, errors of the app included. Throws ApiError when no app
   * answered.
   */
  invoke(target: Target, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const { appId, namespace } = this.#host.options;
    const local = target.app === appId && target.namespace === namespace;
    return local ? this.#invokeLocal(target, request, signal) : this.#invokeRemote(target, request, signal);
  }

  /** Answers a call that arrived over the mesh. An Error becomes the caller's `err` text. */
  async receive(request: MeshRequest, caller: Caller, signal: AbortSignal): Promise<MeshResponse> {
    this.#received(caller.app);
    const { app, options } = this.#host;
    if (app.protocol === "none") throw new Error("app channel is not initialized");
    this.#checkVerb(request.verb);
    try {
      const response = await app.invoke(
        { ...request, headers: this.#nameCaller(request.headers, caller) },
        signal,
      );
      this.#answerSent(caller.app, statusLabel(response));
      return response;
    } catch (error) {
      this.#host.log.debug(`call of ${caller.app} to ${options.appId} failed: ${String(error)}`);
      throw new Error(`error invoking app channel: ${textOf(error)}`, { cause: error });
    }
  }

  async #invokeLocal(target: Target, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const { app } = this.#host;
    if (app.protocol === "none")
      throw invokeFailed(target.id, "cannot invoke local endpoint: app channel not initialized");
    try {
      this.#checkVerb(request.verb);
      return await app.invoke(request, signal);
    } catch (error) {
      throw invokeFailed(target.id, textOf(error), error);
    }
  }

  /** A gRPC caller may leave the verb out (empty) or say NONE; only a gRPC app can do with that. */
  #checkVerb(verb: string): void {
    if (this.#host.app.protocol !== "http") return;
    if (verb === "") throw new Error("missing HTTP extension field");
    if (verb === "NONE" || verb === "CONNECT") throw new Error("invalid HTTP verb");
  }

  async #invokeRemote(target: Target, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
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
        const undelivered = isMeshError(error, "no-responders");
        if (undelivered && !streaming && tries < maxRetries && (await this.#isKnown(target)))
          await clock.sleep(retryWaitMs, signal);
        else {
          const refused = refusal(body);
          if (streaming && refused !== undefined) throw invokeFailed(target.id, refused.message, error);
          throw this.#failure(target, error, undelivered && tries > 0 ? tries : 0);
        }
      }
    }
  }

  /** Presence tells an app whose instances are coming or going from one that does not exist. */
  async #isKnown(target: Target): Promise<boolean> {
    const entries = await this.#host.mesh.presence(target).catch(() => []);
    return entries.length > 0;
  }

  #failure(target: Target, error: unknown, retries: number): Error {
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
    if (headerValue(kept, "user-agent") === undefined) kept.push("User-Agent", "Go-http-client/1.1");
    for (const item of this.#calleeHeaders(caller)) kept.push(item);
    return kept;
  }

  #calleeHeaders(caller: Caller): readonly string[] {
    const key = `${caller.namespace}/${caller.app}`;
    let added = this.#addedByCallee.get(key);
    if (added === undefined) {
      const names = [caller.namespace, caller.app, this.#host.options.appId];
      added = [...identityHeaders].flatMap((name, i) => [name, names[i]!]);
      if (this.#addedByCallee.size >= maxRemembered) this.#addedByCallee.clear();
      this.#addedByCallee.set(key, added);
    }
    return added;
  }
}

/** Set when the body is above the size limit of this sidecar. */
function refusal(body: MeshRequest["body"]): BodyTooLarge | undefined {
  return body instanceof BodyQueue && body.failure instanceof BodyTooLarge ? body.failure : undefined;
}

/** The callee's sidecar says why the app got nothing, in the words of a Go program whose body was cut at the limit. */
function asSentOn(body: MeshRequest["body"]): MeshRequest["body"] {
  const refused = refusal(body);
  if (refused === undefined || body.length === undefined) return body;
  const cut = `http: ContentLength=${body.length} with Body length ${refused.limitBytes}`;
  return failedBody(
    new Error(`net/http: HTTP/1.x transport connection broken: ${cut}`, { cause: refused }),
    body.length,
  );
}

const eventStreamType = "text/event-stream";
const eventStreamHeaders = [
  "Content-Type",
  eventStreamType,
  "Cache-Control",
  "no-cache",
  "Connection",
  "keep-alive",
];
const replacedByEventStream = new Set(["content-type", "cache-control", "connection"]);

/** Another app's answer to a client that asks for server-sent events is one, or an error. */
function eventStream(target: Target, request: MeshRequest, response: MeshResponse): MeshResponse {
  if (headerValue(request.headers, "accept") !== eventStreamType || response.grpc !== undefined)
    return response;
  if (response.status < 200 || response.status > 299) {
    if (!(response.body instanceof Uint8Array)) response.body.cancel(new Error("this answer is not used"));
    const reason = "error invoking app channel: no response received from stream";
    throw invokeFailed(target.id, `rpc error: code = Internal desc = ${reason}`);
  }
  const headers = [...eventStreamHeaders];
  for (let i = 0; i + 1 < response.headers.length; i += 2) {
    const name = response.headers[i]!;
    if (!replacedByEventStream.has(name.toLowerCase())) headers.push(name, response.headers[i + 1]!);
  }
  return { ...response, headers };
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
