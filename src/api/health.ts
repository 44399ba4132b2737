/** Health of the sidecar: which parts are not ready yet, as the health endpoints and the log tell it. */
import { ApiError, GrpcCode } from "./errors.ts";
import { noContent, type HttpCall, type HttpReply, type HttpRoute } from "./http.ts";

/**
 * Parts in start order. `app` is only of `healthz`, and so is `security-provider`, the name under which Dapr shows that
 * the sidecar holds back its stop; the rest is what outbound calls need.
 */
export type HealthPart =
  | "nats"
  | "components"
  | "grpc-api-server"
  | "http-api-server"
  | "app"
  | "security-provider";

const inboundParts: ReadonlySet<HealthPart> = new Set(["app", "security-provider"]);

export class Health {
  readonly #unready: Set<HealthPart>;
  /** Names of components that do not work now; they make no other part unready. */
  away: () => readonly string[] = () => [];

  constructor(parts: readonly HealthPart[]) {
    this.#unready = new Set(parts);
  }

  set(part: HealthPart, ready: boolean): void {
    if (ready) this.#unready.delete(part);
    else this.#unready.add(part);
  }

  isReady(part: HealthPart): boolean {
    return !this.#unready.has(part);
  }

  /** Parts that are not ready, in words. */
  unready(): readonly HealthPart[] {
    return [...this.#unready];
  }

  /** Everything that calls out of the app need; the app itself may still be starting. */
  outboundReady(): boolean {
    return this.unready().every((part) => inboundParts.has(part));
  }
}

export function healthRoutes(health: Health, appId: string): HttpRoute[] {
  return [
    {
      verbs: ["GET"],
      path: "/v1.0/healthz",
      name: "Healthz",
      group: "health",
      handle: (call) => healthz(health, appId, call),
    },
    {
      verbs: ["GET"],
      path: "/v1.0/healthz/outbound",
      name: "HealthzOutbound",
      group: "health",
      handle: () => outbound(health),
    },
    {
      verbs: ["GET"],
      path: "/v1.0/healthz/components",
      name: "HealthzComponents",
      group: "health",
      handle: () => componentsReady(health),
    },
  ];
}

function healthz(health: Health, appId: string, call: HttpCall): HttpReply {
  const unready = health.unready();
  if (unready.length > 0)
    throw unhealthy("ERR_HEALTH_NOT_READY", `dapr is not ready: [${unready.join(" ")}]`);
  const wanted = call.queryValue("appid");
  if (wanted !== undefined && wanted !== appId)
    throw unhealthy("ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match");
  return noContent;
}

function outbound(health: Health): HttpReply {
  if (!health.outboundReady()) throw unhealthy("ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready");
  return noContent;
}

/** Not of Dapr: for who wants an outage of a broker to count. */
function componentsReady(health: Health): HttpReply {
  const away = health.away();
  if (away.length > 0)
    throw unhealthy(
      "ERR_HEALTH_COMPONENTS_AWAY",
      `components do not work now: [${away.toSorted().join(" ")}]`,
    );
  return noContent;
}

function unhealthy(code: string, message: string): ApiError {
  return new ApiError({ code, httpStatus: 500, grpcCode: GrpcCode.Unavailable, message });
}
