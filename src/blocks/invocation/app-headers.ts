/**
 * Headers of an invocation as an HTTP server shall see them. A gRPC caller's metadata travels unfiltered, because only
 * the callee's sidecar knows what its app speaks; here it gets the rules of HTTP.
 */
import { readGrpcCaller, withoutMeshOnly } from "../../api/grpc-caller.ts";
import { forwardRequestHeaders, headerValue } from "../../app/headers.ts";

/** What Go's client sends, which apps behind daprd see when the caller names no agent. */
const userAgent = ["User-Agent", "Go-http-client/1.1"] as const;

/** A list of its own, which the caller may extend. */
export function httpHeaders(headers: readonly string[]): string[] {
  const caller = readGrpcCaller(headers);
  const kept = caller === undefined ? [...headers] : fromMetadata(headers, caller.dataType);
  if (headerValue(kept, "user-agent") === undefined) kept.push(...userAgent);
  return kept;
}

function fromMetadata(headers: readonly string[], dataType: string): string[] {
  const kept = forwardRequestHeaders(withoutMeshOnly(headers), []);
  if (dataType === "") return kept;
  for (let i = kept.length - 2; i >= 0; i -= 2)
    if (kept[i]!.toLowerCase() === "content-type") kept.splice(i, 2);
  kept.push("Content-Type", "application/x-protobuf");
  return kept;
}
