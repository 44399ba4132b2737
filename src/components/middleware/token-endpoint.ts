/** Asks the token endpoint of an OAuth 2.0 server, in the two ways in which servers want to know the client. */

import type { Clock } from "../../../mesh/index.ts";

/** 0 finds out, 1 puts the client into the form, 2 into the header. */
export type AuthStyle = 0 | 1 | 2;

export type TokenEndpoint = {
  readonly url: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly style: AuthStyle;
  readonly clock: Clock;
};

export type Token = {
  /** As a header wants it: `Bearer abc`. */
  readonly header: string;
  /** How long it is good for, s; undefined when the server does not say. */
  readonly expiresInS: number | undefined;
};

const timeoutMs = 10_000;
const maxAnswerChars = 1024 * 1024;

/** Rejects with an Error for the log when there is no token; its text has no secret. */
export async function requestToken(endpoint: TokenEndpoint, form: URLSearchParams): Promise<Token> {
  if (endpoint.style !== 0) return ask(endpoint, endpoint.style, form);
  // A server that knows one way only answers the other with an error.
  try {
    return await ask(endpoint, 2, form);
  } catch (first) {
    return await ask(endpoint, 1, form).catch(() => Promise.reject(first));
  }
}

async function ask(endpoint: TokenEndpoint, style: 1 | 2, form: URLSearchParams): Promise<Token> {
  const body = new URLSearchParams(form);
  const headers: Record<string, string> = { "Content-Type": "application/x-www-form-urlencoded" };
  if (style === 1) {
    body.set("client_id", endpoint.clientId);
    body.set("client_secret", endpoint.clientSecret);
  } else {
    const pair = `${encodeURIComponent(endpoint.clientId)}:${encodeURIComponent(endpoint.clientSecret)}`;
    headers["Authorization"] = `Basic ${Buffer.from(pair).toString("base64")}`;
  }
  const { ok, status, text } = await post(endpoint, headers, body);
  if (!ok) throw new Error(`the token endpoint answers ${status}: ${text.slice(0, 200)}`);
  if (text.length > maxAnswerChars) throw new Error("the token endpoint answers with too much");
  return readToken(text);
}

async function post(
  { url, clock }: TokenEndpoint,
  headers: Readonly<Record<string, string>>,
  body: URLSearchParams,
): Promise<{ readonly ok: boolean; readonly status: number; readonly text: string }> {
  const limit = new AbortController();
  const late = new Error(`the token endpoint gives no answer within ${timeoutMs} ms`);
  const timer = clock.setTimeout(() => limit.abort(late), timeoutMs);
  try {
    const { signal } = limit;
    const answer = await fetch(url, { method: "POST", headers, body, signal, redirect: "error" });
    return { ok: answer.ok, status: answer.status, text: await answer.text() };
  } finally {
    timer.cancel();
  }
}

function readToken(text: string): Token {
  let fields: { access_token?: unknown; token_type?: unknown; expires_in?: unknown };
  try {
    fields = JSON.parse(text) as typeof fields;
  } catch {
    // Old servers answer with a form.
    fields = Object.fromEntries(new URLSearchParams(text));
  }
  const { access_token: token, token_type: kind, expires_in: expires } = fields ?? {};
  if (typeof token !== "string" || token === "")
    throw new Error("the token endpoint's answer has no access_token");
  const seconds = Number(expires);
  return {
    header: `${kindOf(kind)} ${token}`,
    expiresInS: expires !== undefined && Number.isFinite(seconds) ? seconds : undefined,
  };
}

/** Servers write the usual kinds in any letter case. */
function kindOf(kind: unknown): string {
  if (typeof kind !== "string" || kind === "") return "Bearer";
  const usual: Readonly<Record<string, string>> = { bearer: "Bearer", mac: "MAC", basic: "Basic" };
  return usual[kind.toLowerCase()] ?? kind;
}
