/**
 * The way to servers outside the mesh: named HTTP endpoints and plain URLs. One keep-alive client for each pair of
 * target and server; redirects of named endpoints are followed here.
 */
import type { Clock, MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { AppPipelines } from "./app-pipeline.ts";
import { Slots } from "./concurrency.ts";
import { headerValue } from "./headers.ts";
import { HttpApp } from "./http.ts";
import { requestErrorText } from "./net-error.ts";
import { type ClientTls, tlsConnector } from "./tls-connector.ts";

/** A server and how it is called. */
export type ExternalTarget = {
  /** Tells targets apart: the endpoint's name, or the base URL. */
  readonly key: string;
  /** Tells definitions of one key apart, which do not share connections. */
  readonly revision: number;
  /** `http(s)://host[:port][/path]`. */
  readonly baseUrl: string;
  /** Flat list; each replaces the caller's headers of that name. */
  readonly headers: readonly string[];
  readonly tls: ClientTls;
  readonly followRedirects: boolean;
};

export type ExternalSettings = {
  /** Calls at once for each target; <= 0 or Infinity for no limit. */
  readonly maxConcurrency: number;
  /** Largest header section of an answer, bytes. */
  readonly maxHeaderBytes: number;
  /** Around every request. */
  readonly pipelines: AppPipelines;
  readonly clock: Clock;
};

/** Clients kept; the one used longest ago goes first. */
const maxClients = 256;
const maxRedirects = 10;

export class ExternalServers {
  readonly #settings: ExternalSettings;
  readonly #clients = new Map<string, HttpApp>();
  readonly #slots = new Map<string, Slots>();

  constructor(settings: ExternalSettings) {
    this.#settings = settings;
  }

  /** Rejects with an Error in the words of Go's HTTP client when no answer came; every status is an answer. */
  invoke(target: ExternalTarget, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const base = new URL(target.baseUrl);
    // The base is followed by a slash of its own, also when it ends in one.
    const prefix = base.pathname === "/" && !target.baseUrl.endsWith("/") ? "" : base.pathname;
    const headed = {
      ...request,
      path: prefix + request.path,
      headers: overwrite(request.headers, target.headers),
    };
    const send = (sent: MeshRequest): Promise<MeshResponse> =>
      this.#inSlot(this.#slotsOf(target), target, base.origin, sent, signal);
    return this.#settings.pipelines.app?.invoke(headed, signal, send) ?? send(headed);
  }

  /** The slot is free when the last answer has been read, or its reader gave up. */
  async #inSlot(
    slots: Slots,
    target: ExternalTarget,
    origin: string,
    request: MeshRequest,
    signal: AbortSignal,
  ): Promise<MeshResponse> {
    if (!slots.limited) return this.#follow(target, origin, request, signal);
    const release = await slots.hold(signal);
    try {
      const response = await this.#follow(target, origin, request, signal);
      if (response.body instanceof Uint8Array) release();
      else response.body.onEnd(release);
      return response;
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Ends the connections of a target that is not called any more, each with its last call. */
  retire(target: ExternalTarget): void {
    for (const [key, client] of this.#clients) {
      if (!key.startsWith(clientsOf(target))) continue;
      this.#clients.delete(key);
      void client.retire();
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#clients.values()].map((client) => client.close()));
  }

  async #follow(
    target: ExternalTarget,
    firstOrigin: string,
    first: MeshRequest,
    signal: AbortSignal,
  ): Promise<MeshResponse> {
    let origin = firstOrigin;
    let request = first;
    for (let hops = 0; ; hops++) {
      const response = await this.#client(target, origin).invoke(request, signal);
      const next = target.followRedirects ? redirect(response, request, origin, target) : undefined;
      if (next === undefined) return response;
      if (!(response.body instanceof Uint8Array)) response.body.cancel(new Error("a redirect is followed"));
      if (hops === maxRedirects) {
        const url = `${next.origin}${next.request.path}`;
        throw new Error(requestErrorText(next.request.verb, url, `stopped after ${maxRedirects} redirects`));
      }
      ({ origin, request } = next);
    }
  }

  #client(target: ExternalTarget, origin: string): HttpApp {
    const key = `${clientsOf(target)}${origin}`;
    let client = this.#clients.get(key);
    if (client === undefined) client = this.#open(target, new URL(origin));
    // Deleted first, so that the map stays in order of use.
    this.#clients.delete(key);
    this.#clients.set(key, client);
    for (const [oldest, idle] of this.#clients) {
      if (this.#clients.size <= maxClients) break;
      this.#clients.delete(oldest);
      void idle.retire();
    }
    return client;
  }

  #open(target: ExternalTarget, url: URL): HttpApp {
    const scheme = url.protocol === "https:" ? "https" : "http";
    return new HttpApp({
      scheme,
      host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(url.port) || (scheme === "https" ? 443 : 80),
      origin: url.origin,
      // Meant for the own app alone.
      apiToken: undefined,
      maxHeaderBytes: this.#settings.maxHeaderBytes,
      clock: this.#settings.clock,
      connect: tlsConnector(target.tls, this.#settings.clock),
    });
  }

  #slotsOf(target: ExternalTarget): Slots {
    let slots = this.#slots.get(target.key);
    if (slots === undefined) {
      slots = new Slots(this.#settings.maxConcurrency);
      if (this.#slots.size >= maxClients) this.#slots.clear();
      this.#slots.set(target.key, slots);
    }
    return slots;
  }
}

/** How the keys of a target's clients begin. */
function clientsOf({ key, revision }: ExternalTarget): string {
  return `${key}\n${revision}\n`;
}

/** `headers` without those that `own` names, then `own`. */
function overwrite(headers: readonly string[], own: readonly string[]): string[] {
  if (own.length === 0) return [...headers];
  const names = new Set<string>();
  for (let i = 0; i < own.length; i += 2) names.add(own[i]!.toLowerCase());
  return [...without(headers, names), ...own];
}

function without(headers: readonly string[], names: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!names.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

type Hop = { readonly origin: string; readonly request: MeshRequest };

/** Headers about a body that is not sent again. */
const aboutBody = new Set(["content-type", "content-length", "content-encoding", "content-language"]);
/** Credentials of the caller, for the server that was named and its subdomains. */
const credentials = ["authorization", "cookie", "cookie2", "www-authenticate"];

/** The request that a redirect asks for, by the rules of Go's client; undefined when the answer stands as it is. */
function redirect(
  response: MeshResponse,
  request: MeshRequest,
  origin: string,
  target: ExternalTarget,
): Hop | undefined {
  const keepsVerb = response.status === 307 || response.status === 308;
  if (!keepsVerb && response.status !== 301 && response.status !== 302 && response.status !== 303)
    return undefined;
  // What has been streamed cannot be sent again.
  if (keepsVerb && !(request.body instanceof Uint8Array)) return undefined;
  const location = headerValue(response.headers, "location");
  const from = `${origin}${request.path}`;
  if (location === undefined || !URL.canParse(location, from)) return undefined;
  const to = new URL(location, from);
  if (to.protocol !== "http:" && to.protocol !== "https:") return undefined;
  let headers: string[] = without(request.headers, new Set(["referer"]));
  if (!isWithin(to.hostname, new URL(target.baseUrl).hostname)) {
    const secret = new Set(credentials);
    for (let i = 0; i < target.headers.length; i += 2) secret.add(target.headers[i]!.toLowerCase());
    headers = without(headers, secret);
  }
  if (!(origin.startsWith("https:") && to.protocol === "http:")) {
    headers.push("Referer", from + (request.query === "" ? "" : `?${request.query}`));
  }
  const next = { path: to.pathname, query: to.search.slice(1) };
  if (keepsVerb) return { origin: to.origin, request: { ...request, ...next, headers } };
  const verb = request.verb === "GET" || request.verb === "HEAD" ? request.verb : "GET";
  const body = new Uint8Array(0);
  return { origin: to.origin, request: { verb, ...next, headers: without(headers, aboutBody), body } };
}

function isWithin(host: string, parent: string): boolean {
  return host === parent || host.endsWith(`.${parent}`);
}
