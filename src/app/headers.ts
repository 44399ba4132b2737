/** Header rules between client, mesh and app: what is forwarded, what never is. Names compare in lower case. */

import { upgradeName } from "../api/upgrade.ts";

/** Hop-by-hop headers and those that belong to the transport of one hop. */
const hopByHop = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "te",
  "trailer",
  "proxy-authorization",
  "proxy-authenticate",
]);

/** Further ones that a request does not carry on: the next hop sets its own. */
const requestOnly = new Set([
  "host",
  "content-length",
  "expect",
  "destination-app-id",
  "dapr-app-id",
  "dapr-caller-app-id",
  "dapr-caller-namespace",
  "dapr-callee-app-id",
  // Names that only sidecars may use among themselves (api/grpc-caller.ts).
  "weft-grpc-method",
  "weft-data-type",
  upgradeName,
]);

/** Pseudo and gRPC names keep their value under a `dapr-` name. */
const renamed = /^(grpc-|:method$|:scheme$|:path$|:authority$)/;

/** Headers of a request that go on to the app, flat; `extra` are appended after them. */
export function forwardRequestHeaders(raw: readonly string[], extra: readonly string[]): string[] {
  const connection = connectionOptions(raw);
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!;
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || requestOnly.has(lower) || connection?.has(lower) || lower.endsWith("-bin"))
      continue;
    kept.push(renamed.test(lower) ? `dapr-${lower.replace(":", "")}` : name, raw[i + 1]!);
  }
  for (const item of extra) kept.push(item);
  return kept;
}

/** Headers of an app's answer that go back to the client; the sidecar frames the body itself. */
export function forwardResponseHeaders(raw: readonly string[]): string[] {
  const connection = connectionOptions(raw);
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const lower = raw[i]!.toLowerCase();
    if (hopByHop.has(lower) || lower === "content-length" || connection?.has(lower) || lower.endsWith("-bin"))
      continue;
    kept.push(raw[i]!, raw[i + 1]!);
  }
  return kept;
}

/** Headers named by `Connection` belong to this hop too. */
function connectionOptions(raw: readonly string[]): Set<string> | undefined {
  let named: Set<string> | undefined;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (raw[i]!.toLowerCase() !== "connection") continue;
    for (const option of raw[i + 1]!.split(",")) {
      const name = option.trim().toLowerCase();
      if (name !== "" && name !== "keep-alive" && name !== "close") (named ??= new Set()).add(name);
    }
  }
  return named;
}

/** First value of a header in a flat list; undefined when absent. `name` in lower case. */
export function headerValue(raw: readonly string[], name: string): string | undefined {
  for (let i = 0; i + 1 < raw.length; i += 2) if (raw[i]!.toLowerCase() === name) return raw[i + 1];
  return undefined;
}
