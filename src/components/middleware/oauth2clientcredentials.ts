/** Adds a token of the sidecar's own to requests, got by the client credentials flow and kept until it expires. */
import { withHeader } from "../../lib/flat-headers.ts";
import type { Middleware } from "../../middleware/port.ts";
import { brokenReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { onPaths } from "./path-filter.ts";
import { type AuthStyle, requestToken, type TokenEndpoint } from "./token-endpoint.ts";

export const type = "middleware.http.oauth2clientcredentials";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  clientID: { kind: "string", required: true, description: "Client ID of the application" },
  clientSecret: { kind: "string", required: true, secret: true, description: "Secret of the application" },
  scopes: { kind: "string", required: true, description: "Scopes to ask for, separated by commas" },
  tokenURL: { kind: "string", required: true, description: "Token endpoint of the authorization server" },
  headerName: {
    kind: "string",
    required: true,
    description: "Header in which the token goes on, e.g. authorization",
  },
  endpointParamsQuery: {
    kind: "string",
    description: "More parameters for the token endpoint, as a query: audience=x&resource=y",
  },
  authStyle: {
    kind: "integer",
    default: "0",
    min: 0,
    max: 2,
    description: "How the client shows itself: 0 find out, 1 in the form, 2 in the header",
  },
  pathFilter: {
    kind: "string",
    description: "Regular expression: only requests whose path matches get a token",
  },
} as const satisfies MetadataSchema;

/** A token that does not say how long it lives is used for this long, s. */
const unknownLifeS = 300;

export function open(context: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const { metadata, clock, log } = context;
  const { clientID: clientId, clientSecret, tokenURL: url, headerName } = metadata;
  if (!URL.canParse(url)) throw new Error(`metadata field "tokenURL": "${url}" is no URL`);
  const form = new URLSearchParams(metadata.endpointParamsQuery);
  form.set("grant_type", "client_credentials");
  form.set("scope", metadata.scopes.split(",").join(" "));
  const style = metadata.authStyle as AuthStyle;
  const tokens = new Tokens({ url, clientId, clientSecret, style, clock }, form);
  const middleware: Middleware = {
    async handle(request, next) {
      let header: string;
      try {
        header = await tokens.get();
      } catch (error) {
        log.error(`no token: ${error instanceof Error ? error.message : String(error)}`);
        return brokenReply();
      }
      request.headers = withHeader(request.headers, headerName, header);
      return next();
    },
    close: () => Promise.resolve(),
  };
  return Promise.resolve(onPaths(metadata.pathFilter, middleware));
}

/** The token of now. Requests that come while one is being fetched wait for the same one. */
class Tokens {
  readonly #endpoint: TokenEndpoint;
  readonly #form: URLSearchParams;
  #token: { readonly header: string; readonly untilMs: number } | undefined;
  #fetching: Promise<string> | undefined;

  constructor(endpoint: TokenEndpoint, form: URLSearchParams) {
    this.#endpoint = endpoint;
    this.#form = form;
  }

  /** Rejects when the server gives none. */
  get(): string | Promise<string> {
    const token = this.#token;
    if (token !== undefined && this.#endpoint.clock.monotonicMs() < token.untilMs) return token.header;
    this.#fetching ??= this.#fetch().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  async #fetch(): Promise<string> {
    const { header, expiresInS = unknownLifeS } = await requestToken(this.#endpoint, this.#form);
    this.#token = { header, untilMs: this.#endpoint.clock.monotonicMs() + expiresInS * 1_000 };
    return header;
  }
}
