/**
 * What a caller is told when nobody takes its call, although presence shows the app: its apps are ill, or not up yet.
 */
import type { MeshRequest, MeshResponse, PresenceEntry } from "../../../mesh/index.ts";
import { GrpcCode, grpcStatusText } from "../../api/errors.ts";
import { unhealthyApp } from "../../app/health.ts";
import { requestErrorText } from "../../app/net-error.ts";

/** `ill` and `starting` are the best that any instance can say. */
export type Whereabouts =
  | { readonly state: "unknown" | "serving" }
  | { readonly state: "ill" | "starting"; readonly at: string };

export function whereabouts(entries: readonly PresenceEntry[]): Whereabouts {
  if (entries.length === 0) return { state: "unknown" };
  if (entries.some(({ unready }) => unready === undefined)) return { state: "serving" };
  const known = entries.map(({ unready }) => unready!);
  return known.find(({ state }) => state === "starting") ?? known[0]!;
}

const channel = grpcStatusText(GrpcCode.Internal, "error invoking app channel:");

/** Reason of the failure when all instances have ill apps. */
export function illReason(): string {
  return `${channel} ${unhealthyApp().message}`;
}

/** The answer for an app that is not up, as its own sidecar would give it. A text is the reason of a failure. */
export function notUp(at: string, request: MeshRequest): string | MeshResponse {
  const url = new URL(at);
  const refused = `dial tcp ${url.host}: connect: connection refused`;
  if (!url.protocol.startsWith("grpc")) {
    const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
    return `${channel} ${requestErrorText(request.verb, at + path, refused)}`;
  }
  return {
    status: 503,
    headers: [],
    body: new Uint8Array(0),
    grpc: { code: GrpcCode.Unavailable, message: refusedText(at) },
  };
}

/** Words of a gRPC client whose app does not accept connections. */
export function refusedText(at: string): string {
  const refused = `dial tcp ${new URL(at).host}: connect: connection refused`;
  return `connection error: desc = "transport: Error while dialing: ${refused}"`;
}
