/** Where the next page of a listing begins, as clients get it. */
import { malformedRequest } from "./errors.ts";

const maxTokenChars = 16_384;

/** What the cursor names is checked again by the store, so it needs no seal of ours. */
export function sealToken(store: string, prefix: string, cursor: string): string {
  return Buffer.from(JSON.stringify([store, prefix, cursor])).toString("base64url");
}

/** Throws ApiError for text that is no token, or one of another store or prefix. */
export function openToken(token: string, store: string, prefix: string): string {
  try {
    if (token.length > maxTokenChars) throw new Error("too long");
    const parts: unknown = JSON.parse(Buffer.from(token, "base64url").toString());
    if (!Array.isArray(parts) || parts.length !== 3 || parts[0] !== store || parts[1] !== prefix)
      throw new Error("of something else");
    if (typeof parts[2] !== "string") throw new Error("no cursor");
    return parts[2];
  } catch (cause) {
    throw badToken(cause);
  }
}

export function badToken(cause: unknown): Error {
  return malformedRequest("token must be one that an earlier page of the same store and prefix gave", cause);
}
