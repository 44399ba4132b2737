/**
 * Sends browsers to an authorization server and lets them pass once they come back with a code (authorization code
 * flow). The token stays in the sidecar, in a session that a cookie names, and goes on as a header.
 */
import { randomBytes, randomUUID } from "node:crypto";
import type { Clock } from "../../../mesh/index.ts";
import { getHeader, headerValues, withHeader } from "../../lib/flat-headers.ts";
import type { Middleware, MiddlewareReply, MiddlewareRequest, Next } from "../../middleware/port.ts";
import { brokenReply, textReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { onPaths } from "./path-filter.ts";
import { requestToken } from "./token-endpoint.ts";

export const type = "middleware.http.oauth2";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  clientID: { kind: "string", required: true, description: "Client ID of the application" },
  clientSecret: { kind: "string", required: true, secret: true, description: "Secret of the application" },
  scopes: { kind: "string", default: "", description: "Scopes to ask for, separated by commas" },
  authURL: { kind: "string", required: true, description: "Authorization endpoint of the server" },
  tokenURL: { kind: "string", required: true, description: "Token endpoint of the server" },
  redirectURL: { kind: "string", default: "", description: "Where the server sends the browser back to" },
  authHeaderName: {
    kind: "string",
    required: true,
    description: "Header in which the token goes on, e.g. authorization",
  },
  forceHTTPS: { kind: "boolean", default: "false", description: "Browsers go on by https after the login" },
  pathFilter: {
    kind: "string",
    description: "Regular expression: only requests whose path matches need a login",
  },
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];
type Log = ComponentContext["log"];

const cookieName = "gosessionsid";
/** Sessions kept; the one used longest ago goes first. */
const maxSessions = 10_000;
/** A session that nobody uses ends after this, ms. */
const idleMs = 2 * 60 * 60 * 1_000;

export function open({ metadata, clock, log }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  for (const field of ["authURL", "tokenURL"] as const)
    if (!URL.canParse(metadata[field]))
      throw new Error(`metadata field "${field}": "${metadata[field]}" is no URL`);
  return Promise.resolve(onPaths(metadata.pathFilter, new OAuth2(metadata, clock, log)));
}

type Session = {
  readonly id: string;
  usedMs: number;
  /** What the server must bring back. */
  state: string | undefined;
  /** Path and query that the browser first wanted. */
  wanted: string | undefined;
  /** Value of the header, once there is a token. */
  header: string | undefined;
};

class OAuth2 implements Middleware {
  readonly #settings: Settings;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #sessions: Sessions;

  constructor(settings: Settings, clock: Clock, log: Log) {
    this.#settings = settings;
    this.#clock = clock;
    this.#log = log;
    this.#sessions = new Sessions(clock);
  }

  async handle(request: MiddlewareRequest, next: Next): Promise<MiddlewareReply> {
    const { session, isNew } = this.#sessions.of(request);
    const reply = await this.#inSession(session, request, next);
    return isNew ? { ...reply, headers: [...reply.headers, "Set-Cookie", this.#cookie(session)] } : reply;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #inSession(session: Session, request: MiddlewareRequest, next: Next): Promise<MiddlewareReply> {
    if (session.header !== undefined) {
      request.headers = withHeader(request.headers, this.#settings.authHeaderName, session.header);
      return next();
    }
    const parameters = new URLSearchParams(request.query);
    const state = parameters.get("state") ?? "";
    if (state === "") return Promise.resolve(this.#toServer(session, request));
    return this.#comeBack(session, request, state, parameters.get("code") ?? "");
  }

  #toServer(session: Session, request: MiddlewareRequest): MiddlewareReply {
    const { clientID, authURL, redirectURL, scopes } = this.#settings;
    session.state = randomUUID();
    session.wanted = request.query === "" ? request.path : `${request.path}?${request.query}`;
    const target = new URL(authURL);
    const parameters = { client_id: clientID, redirect_uri: redirectURL, scope: scopes.split(",").join(" ") };
    for (const [name, value] of Object.entries(parameters))
      if (value !== "") target.searchParams.set(name, value);
    target.searchParams.set("access_type", "offline");
    target.searchParams.set("response_type", "code");
    target.searchParams.set("state", session.state);
    target.searchParams.sort();
    return redirectTo(target.href);
  }

  async #comeBack(
    session: Session,
    request: MiddlewareRequest,
    state: string,
    code: string,
  ): Promise<MiddlewareReply> {
    const { wanted } = session;
    if (wanted === undefined) {
      this.#log.warn(
        "a browser came back from the authorization server without a session that was sent there",
      );
      return brokenReply();
    }
    if (state !== session.state) return textReply(400, "invalid state");
    if (code === "") return textReply(400, "code not found");
    const { clientID: clientId, clientSecret, tokenURL: url, redirectURL, forceHTTPS } = this.#settings;
    const form = new URLSearchParams({ grant_type: "authorization_code", code });
    if (redirectURL !== "") form.set("redirect_uri", redirectURL);
    try {
      session.header = (
        await requestToken({ url, clientId, clientSecret, style: 0, clock: this.#clock }, form)
      ).header;
    } catch (error) {
      this.#log.error(`no token for a code: ${error instanceof Error ? error.message : String(error)}`);
      return brokenReply();
    }
    session.state = undefined;
    const host = getHeader(request.headers, "host");
    return redirectTo(forceHTTPS && host !== undefined ? `https://${host}${wanted}` : wanted);
  }

  #cookie({ id }: Session): string {
    return `${cookieName}=${id}; Path=/; HttpOnly; SameSite=Lax${this.#settings.forceHTTPS ? "; Secure" : ""}`;
  }
}

function redirectTo(location: string): MiddlewareReply {
  return { status: 302, headers: ["Location", location], body: new Uint8Array(0) };
}

class Sessions {
  readonly #clock: Clock;
  readonly #byId = new Map<string, Session>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The session that a request's cookie names, or a new one: ids that are not known are not taken over. */
  of(request: MiddlewareRequest): { readonly session: Session; readonly isNew: boolean } {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#byId.get(cookieOf(request.headers) ?? "");
    const isNew = known === undefined || nowMs - known.usedMs > idleMs;
    const session = isNew ? newSession(nowMs) : known;
    session.usedMs = nowMs;
    // Deleted first, so that the map stays in order of use.
    this.#byId.delete(session.id);
    this.#byId.set(session.id, session);
    if (this.#byId.size > maxSessions) this.#byId.delete(this.#byId.keys().next().value!);
    return { session, isNew };
  }
}

function newSession(nowMs: number): Session {
  const id = randomBytes(24).toString("base64url");
  return { id, usedMs: nowMs, state: undefined, wanted: undefined, header: undefined };
}

function cookieOf(headers: readonly string[]): string | undefined {
  for (const pair of headerValues(headers, "cookie").join(";").split(";")) {
    const [name, value] = pair.trim().split("=");
    if (name === cookieName) return value;
  }
  return undefined;
}
