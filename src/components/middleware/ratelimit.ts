/**
 * A number of requests each second for every client: a bucket of tokens by address, filled at that rate and as large as
 * one second's worth.
 */
import type { Clock } from "../../../mesh/index.ts";
import { headerValues } from "../../lib/flat-headers.ts";
import type { Middleware, MiddlewareRequest } from "../../middleware/port.ts";
import { textReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "middleware.http.ratelimit";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  maxRequestsPerSecond: {
    kind: "number",
    default: "100",
    description: "Requests that one client may make in a second, above 0",
  },
} as const satisfies MetadataSchema;

/** Clients remembered; the one that came longest ago is forgotten first, and then starts with a full bucket. */
const maxClients = 10_000;

export function open({ metadata, clock }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const perSecond = metadata.maxRequestsPerSecond;
  if (!(perSecond > 0)) throw new Error(`metadata field "maxRequestsPerSecond" must be above 0`);
  const buckets = new Buckets(perSecond, clock);
  const limit = String(Math.round(perSecond));
  const shown = perSecond.toFixed(2);
  return Promise.resolve({
    async handle(request, next) {
      const left = buckets.take(clientOf(request));
      const headers = [
        "RateLimit-Limit",
        limit,
        "RateLimit-Reset",
        "1",
        "RateLimit-Remaining",
        String(Math.max(0, left)),
        "X-Rate-Limit-Limit",
        shown,
        "X-Rate-Limit-Duration",
        "1",
      ];
      if (left < 0) return textReply(429, "You have reached maximum request limit.", headers);
      const reply = await next();
      return { ...reply, headers: [...reply.headers, ...headers] };
    },
    close: () => Promise.resolve(),
  });
}

type Bucket = { tokens: number; atMs: number };

class Buckets {
  readonly #perSecond: number;
  readonly #size: number;
  readonly #clock: Clock;
  readonly #byClient = new Map<string, Bucket>();

  constructor(perSecond: number, clock: Clock) {
    this.#perSecond = perSecond;
    this.#size = Math.max(1, Math.floor(perSecond));
    this.#clock = clock;
  }

  /** Whole tokens that are left after this one; below 0 when there was none. */
  take(client: string): number {
    const nowMs = this.#clock.monotonicMs();
    const bucket = this.#byClient.get(client) ?? { tokens: this.#size, atMs: nowMs };
    bucket.tokens = Math.min(this.#size, bucket.tokens + ((nowMs - bucket.atMs) / 1_000) * this.#perSecond);
    bucket.atMs = nowMs;
    // Deleted first, so that the map stays in order of use.
    this.#byClient.delete(client);
    this.#byClient.set(client, bucket);
    if (this.#byClient.size > maxClients) this.#byClient.delete(this.#byClient.keys().next().value!);
    if (bucket.tokens < 1) return -1;
    bucket.tokens -= 1;
    return Math.floor(bucket.tokens);
  }
}

/** The address that the nearest proxy names, else that of the socket. */
function clientOf({ headers, remoteAddress }: MiddlewareRequest): string {
  const forwarded = headerValues(headers, "x-forwarded-for").join(",").split(",").at(-1)!.trim();
  return forwarded || headerValues(headers, "x-real-ip")[0] || remoteAddress;
}
