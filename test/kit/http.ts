/**
 * A small HTTP client for tests: sends the path exactly as given (no URL clean-up), keeps no connection across
 * restarts of its peer, and reads answers whole.
 */
import { Agent } from "undici";

export type HttpInit = {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** Text and bytes go as they are; anything else becomes JSON with its content type. */
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  /** Longest wait for the head and between parts of the body, ms; 30,000 when not given. */
  readonly timeoutMs?: number;
};

/** A whole answer. */
export type HttpReply = {
  readonly status: number;
  /** By lower-case name; values of a repeated name as a list. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly bytes: Buffer;
  readonly text: string;
  /** The body as JSON. Throws with status and text when it is none. */
  json<T = unknown>(): T;
};

export type HttpClient = AsyncDisposable & {
  /** Rejects when the connection fails; every status is an answer. */
  http(path: string, init?: HttpInit): Promise<HttpReply>;
  get(path: string, headers?: HttpInit["headers"]): Promise<HttpReply>;
  post(path: string, body?: unknown, headers?: HttpInit["headers"]): Promise<HttpReply>;
};

/** A client of one server, e.g. `http://127.0.0.1:3500`. */
export function httpClient(origin: string): HttpClient {
  const agent = new Agent({ connections: 64, keepAliveTimeout: 10_000 });
  const http = (path: string, init: HttpInit = {}): Promise<HttpReply> => send(agent, origin, path, init);
  const withHeaders = (headers: HttpInit["headers"]): HttpInit => (headers === undefined ? {} : { headers });
  return {
    http,
    get: (path, headers) => http(path, withHeaders(headers)),
    post: (path, body, headers) => http(path, { method: "POST", body, ...withHeaders(headers) }),
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}

async function send(agent: Agent, origin: string, path: string, init: HttpInit): Promise<HttpReply> {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(init.headers ?? {})) {
    headers[name] = typeof value === "string" ? value : [...value];
  }
  const body = encodeBody(init.body, headers);
  const timeoutMs = init.timeoutMs ?? 30_000;
  const answer = await agent.request({
    origin,
    path,
    method: init.method ?? "GET",
    headers,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    ...(body === undefined ? {} : { body }),
    ...(init.signal === undefined ? {} : { signal: init.signal }),
  });
  const bytes = Buffer.from(await answer.body.arrayBuffer());
  return reply(answer.statusCode, answer.headers, bytes);
}

function encodeBody(
  body: unknown,
  headers: Record<string, string | string[]>,
): string | Uint8Array | undefined {
  if (body === undefined || typeof body === "string" || body instanceof Uint8Array) return body;
  const named = Object.keys(headers).some((name) => name.toLowerCase() === "content-type");
  if (!named) headers["content-type"] = "application/json";
  return JSON.stringify(body);
}

function reply(status: number, headers: HttpReply["headers"], bytes: Buffer): HttpReply {
  const text = bytes.toString("utf8");
  return {
    status,
    headers,
    bytes,
    text,
    json<T>(): T {
      try {
        return JSON.parse(text) as T;
      } catch (cause) {
        throw new Error(`the answer (status ${status}) is not JSON: ${text.slice(0, 500)}`, { cause });
      }
    },
  };
}
