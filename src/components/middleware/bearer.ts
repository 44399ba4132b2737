/**
 * Lets requests pass that carry a token of an OpenID Connect issuer. The issuer's keys are fetched at the start and
 * again when a token names one that is not known.
 */
import { textWithCause } from "../../lib/thrown.ts";
import type { JWTVerifyGetKey } from "jose";
import { getHeader } from "../../lib/flat-headers.ts";
import type { Middleware } from "../../middleware/port.ts";
import { brokenReply, textReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "middleware.http.bearer";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  issuer: {
    kind: "string",
    required: true,
    aliases: ["issuerURL"],
    description: "Issuer of the tokens, e.g. https://accounts.example.com",
  },
  audience: {
    kind: "string",
    required: true,
    aliases: ["clientID"],
    description: "Audience that tokens must name, usually a client ID",
  },
  jwksURL: {
    kind: "string",
    description: "Address of the issuer's keys; found by OpenID Connect discovery unless given",
  },
} as const satisfies MetadataSchema;

/** Clocks of issuer and sidecar may differ by this, s. */
const clockSkewS = 5 * 60;
/** Keys are fetched again after this, ms. */
const keysMaxAgeMs = 10 * 60 * 1_000;
const fetchTimeoutMs = 5_000;
const maxDocumentBytes = 1024 * 1024;

export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const { metadata, clock, log, signal } = context;
  const { createRemoteJWKSet, errors, jwtVerify } = await import("jose");
  const keys = createRemoteJWKSet(new URL(metadata.jwksURL ?? (await discover(metadata.issuer, signal))), {
    cacheMaxAge: keysMaxAgeMs,
    timeoutDuration: fetchTimeoutMs,
  });
  await keys.reload().catch((cause: unknown) => {
    throw new Error(`failed to fetch the keys of the issuer: ${textWithCause(cause)}`, { cause });
  });
  const { issuer, audience } = metadata;
  const check = async (token: string): Promise<void> => {
    const options = { issuer, audience, clockTolerance: clockSkewS, currentDate: new Date(clock.nowMs()) };
    await jwtVerify(token, keys as JWTVerifyGetKey, options);
  };
  // What is wrong with a token is the client's affair; what is wrong with the keys is ours.
  const isOurs = (error: unknown): boolean =>
    !(error instanceof errors.JOSEError) ||
    error instanceof errors.JWKSTimeout ||
    error instanceof errors.JWKSInvalid;
  return {
    async handle(request, next) {
      const token = /^bearer (.+)$/i.exec(getHeader(request.headers, "authorization") ?? "")?.[1];
      if (token === undefined) return unauthorized();
      try {
        await check(token);
      } catch (error) {
        if (!isOurs(error)) return unauthorized();
        log.error(`the keys of the issuer cannot be had: ${textWithCause(error)}`);
        return brokenReply();
      }
      return next();
    },
    close: () => Promise.resolve(),
  };
}

/** Address of the keys, from the issuer's own document. */
async function discover(issuer: string, signal: AbortSignal): Promise<string> {
  const address = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const failed = (reason: string, cause?: unknown): Error =>
    new Error(`${address}: ${reason}; check the issuer, or give jwksURL`, { cause });
  let document: { readonly issuer?: unknown; readonly jwks_uri?: unknown };
  try {
    const answer = await fetch(address, { signal });
    if (answer.status !== 200) throw new Error(`status ${answer.status}`);
    const text = await answer.text();
    if (text.length > maxDocumentBytes) throw new Error(`longer than ${maxDocumentBytes} bytes`);
    document = JSON.parse(text) as typeof document;
  } catch (cause) {
    throw failed(textWithCause(cause), cause);
  }
  if (document.issuer !== issuer)
    throw failed(`its issuer is ${JSON.stringify(document.issuer)}, not ${JSON.stringify(issuer)}`);
  if (typeof document.jwks_uri !== "string" || !URL.canParse(document.jwks_uri))
    throw failed("it has no jwks_uri");
  return document.jwks_uri;
}

function unauthorized() {
  return textReply(401, "Unauthorized");
}
