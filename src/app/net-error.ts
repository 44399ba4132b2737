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
    case "APP_CLOSED":
      return "EOF";
    case "ERR_HTTP2_STREAM_ERROR":
      return `stream error: ${/NGHTTP2_(\w+)/.exec(error.message)?.[1] ?? "PROTOCOL_ERROR"}; received from peer`;
    default:
      return tlsErrorText(error, host);
  }
}

const verify = "tls: failed to verify certificate: x509:";
const unknownAuthority = `${verify} certificate signed by unknown authority`;
const outOfDate = `${verify} certificate has expired or is not yet valid`;
const badVersion = "remote error: tls: protocol version not supported";
const noTls = "http: server gave HTTP response to HTTPS client";

const tlsTexts: ReadonlyMap<string, string> = new Map([
  ["SELF_SIGNED_CERT_IN_CHAIN", unknownAuthority],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", unknownAuthority],
  ["UNABLE_TO_GET_ISSUER_CERT", unknownAuthority],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", unknownAuthority],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", unknownAuthority],
  ["CERT_HAS_EXPIRED", outOfDate],
  ["CERT_NOT_YET_VALID", outOfDate],
  ["ERR_SSL_WRONG_VERSION_NUMBER", noTls],
  ["ERR_SSL_PACKET_LENGTH_TOO_LONG", noTls],
  ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "remote error: tls: certificate required"],
  ["ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION", badVersion],
  ["ERR_SSL_UNSUPPORTED_PROTOCOL", badVersion],
]);

/** TLS failures; the text as it is for everything else. */
function tlsErrorText(error: NetError, host: string): string {
  if (error.code === "ERR_TLS_CERT_ALTNAME_INVALID") return `${verify} certificate is not valid for ${host}`;
  return tlsTexts.get(error.code ?? "") ?? error.message;
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
