/**
 * Reads of an API outside that answers JSON over HTTP or HTTPS. Certificates are read again at each call, so that
 * files which are exchanged while the sidecar runs count at once; connections come back by themselves.
 */
import type { Dispatcher } from "undici";
import type { Clock } from "../../../mesh/index.ts";
import { asError } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import { createReach } from "./reach.ts";

/** PEM texts and the choices of a TLS client; empty for the roots and checks of Node. */
export type TlsChoice = {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly rejectUnauthorized?: boolean;
};

export type JsonRequest = {
  readonly url: string;
  /** `GET` when not given. Must be without effect: it is sent again when its connection turns out to be gone. */
  readonly method?: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
};

export type JsonAnswer = {
  readonly status: number;
  readonly text: string;
  readonly location: string | undefined;
};

export type JsonApi = {
  /** Resolves with any status. Rejects with an Error that names the server, what is wrong, and the remedy if known. */
  request(request: JsonRequest): Promise<JsonAnswer>;
  /** Unix ms; undefined while the last call, or a try since then, reached the server. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

export type JsonApiInit = {
  /** Called before each request; may reject with a readable Error. */
  readonly tls: () => Promise<TlsChoice>;
  /** What the user may do, by what is wrong. */
  readonly remedies: {
    readonly unreachable: string;
    readonly untrusted: string;
    readonly otherName: string;
  };
  /** Names the server in the log. */
  readonly what: string;
  /** Asked while the server is away; any answer shows that it is back. */
  readonly probeUrl: string;
  readonly clock: Clock;
  readonly log: Log;
};

/** Longest silence of a server, ms. */
const silenceMs = 30_000;
const maxConnections = 32;
const maxAnswerBytes = 128 * 1024 * 1024;

export async function openJsonApi(init: JsonApiInit): Promise<JsonApi> {
  const { tls, remedies, what, probeUrl } = init;
  const { Agent, request: send } = await import("undici");
  let agent: Dispatcher | undefined;
  let agentFor = "";
  const agentNow = async (): Promise<Dispatcher> => {
    const choice = await tls();
    const wanted = JSON.stringify(choice);
    if (agent !== undefined && wanted === agentFor) return agent;
    // Requests that run end on the old connections.
    void agent?.close();
    agentFor = wanted;
    agent = new Agent({
      headersTimeout: silenceMs,
      bodyTimeout: silenceMs,
      connections: maxConnections,
      connect: choice,
    });
    return agent;
  };
  const ask = async ({ url, method = "GET", headers, signal }: JsonRequest): Promise<JsonAnswer> => {
    const dispatcher = await agentNow();
    const answer = await send(url, { dispatcher, method: method as "GET", headers, signal });
    const { location } = answer.headers;
    const text = await textOfBody(answer.body);
    return { status: answer.statusCode, text, location: typeof location === "string" ? location : undefined };
  };
  // A try ends with its connection when the component is closed.
  const probe = () => ask({ url: probeUrl, headers: {}, signal: new AbortController().signal });
  const reach = createReach(what, init, probe);
  const askAgain = (request: JsonRequest): Promise<JsonAnswer> =>
    ask(request).catch((error: unknown) => {
      if (!isGone(error)) throw error;
      return ask(request);
    });
  return {
    async request(request) {
      try {
        return await reach.watch(askAgain(request));
      } catch (error) {
        if (request.signal.aborted) throw error;
        throw readable(error, request.url, remedies);
      }
    },
    awaySinceMs: () => reach.awaySinceMs(),
    async close() {
      reach.close();
      await agent?.destroy();
    },
  };
}

async function textOfBody(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxAnswerBytes) throw new Error(`its answer is longer than ${maxAnswerBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size).toString();
}

/** The server closed a kept connection at the moment when it was used, or another request brought new certificates. */
function isGone(error: unknown): boolean {
  return ["UND_ERR_SOCKET", "UND_ERR_CLOSED", "ECONNRESET"].includes(codeOf(error));
}

function codeOf(error: unknown): string {
  return String((error as { readonly code?: unknown } | null)?.code ?? "");
}

const untrusted = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_SIGNATURE_FAILURE",
]);

function readable(thrown: unknown, url: string, remedies: JsonApiInit["remedies"]): Error {
  // A name with several addresses fails with one error for each.
  const error = asError(thrown instanceof AggregateError ? (thrown.errors[0] ?? thrown) : thrown);
  const code = codeOf(error);
  const remedy = untrusted.has(code)
    ? remedies.untrusted
    : code === "ERR_TLS_CERT_ALTNAME_INVALID"
      ? remedies.otherName
      : /^(E[A-Z_]+|UND_ERR_CONNECT_TIMEOUT)$/.test(code)
        ? remedies.unreachable
        : undefined;
  const text = `${new URL(url).origin}: ${error.message}${remedy === undefined ? "" : `; ${remedy}`}`;
  return new Error(text, { cause: error });
}
