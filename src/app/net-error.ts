/**
 * Network errors in the words Go programs use, because clients of Dapr match on them. The one place that knows them.
 */

type NetError = Error & {
  readonly code?: string;
  readonly address?: string;
  readonly port?: number;
  readonly errors?: Error[];
};

/** `dial tcp 127.0.0.1:3000: connect: connection refused` and the like. */
export function netErrorText(thrown: unknown, host: string, port: number): string {
  const error = innermost(thrown);
  const dial = `dial tcp ${host.includes(":") ? `[${host}]` : host}:${port}`;
  switch (error.code) {
    case "ECONNREFUSED":
      return `${dial}: connect: connection refused`;
    case "ETIMEDOUT":
    case "UND_ERR_CONNECT_TIMEOUT":
      return `${dial}: i/o timeout`;
    case "EHOSTUNREACH":
      return `${dial}: connect: no route to host`;
    case "ENOTFOUND":
      return `dial tcp: lookup ${host}: no such host`;
    case "ECONNRESET":
    case "EPIPE":
      return "read: connection reset by peer";
    case "UND_ERR_SOCKET":
      return "EOF";
    default:
      return error.message;
  }
}

function innermost(thrown: unknown): NetError {
  let error = (thrown instanceof Error ? thrown : new Error(String(thrown))) as NetError;
  for (let depth = 0; depth < 4; depth++) {
    const next = error.errors?.[0] ?? (error.code === undefined ? error.cause : undefined);
    if (!(next instanceof Error)) break;
    error = next;
  }
  return error;
}

/** The form Go's HTTP client gives: `Post "http://host/path": <reason>`. */
export function requestErrorText(verb: string, url: string, reason: string): string {
  return `${verb.charAt(0)}${verb.slice(1).toLowerCase()} ${JSON.stringify(url)}: ${reason}`;
}
