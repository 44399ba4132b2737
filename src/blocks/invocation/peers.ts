/**
 * What a sidecar knows of the other apps: which of them will be back although nobody answers now, how a caller is named
 * to the own app, and the counters of calls both ways.
 */
import type { Caller } from "../../../mesh/index.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { BlockHost } from "../block.ts";
import type { AppTarget } from "./target.ts";
import { type Whereabouts, whereabouts } from "./unready.ts";

/** After NATS came back, everybody reconnects and announces within this time, ms. */
const gatheringMs = 5_000;
/** Callers remembered with their headers. */
const maxRemembered = 1_000;

/** Names by which an app knows its caller, in the order of `Peers.identityOf`; only the mesh may say them. */
export const identityHeaders: ReadonlySet<string> = new Set([
  "dapr-caller-namespace",
  "dapr-caller-app-id",
  "dapr-callee-app-id",
]);

export class Peers {
  readonly traffic: Traffic;
  readonly #host: BlockHost;
  /** Monotonic time of the last reconnect to NATS. */
  #backSinceMs = Number.NEGATIVE_INFINITY;
  #met: boolean;
  readonly #identityByCaller = new Map<string, readonly string[]>();

  constructor(host: BlockHost) {
    this.#host = host;
    this.traffic = trafficOf(host.metrics);
    this.#met = host.mesh.status().connected;
    host.mesh.onStatus((status) => {
      if (status.connected && this.#met) this.#backSinceMs = host.clock.monotonicMs();
      this.#met ||= status.connected;
    });
  }

  /** NATS came back a moment ago: the others may still be on their way. */
  get gathering(): boolean {
    return this.#host.clock.monotonicMs() - this.#backSinceMs < gatheringMs;
  }

  /** Presence tells an app whose instances are coming, going or ill from one that does not exist. */
  async whereabouts(target: AppTarget): Promise<Whereabouts> {
    return whereabouts(await this.#host.mesh.presence(target).catch(() => []));
  }

  /** The caller as the NATS subject names it; whatever a client wrote under these names is dropped. */
  nameCaller(headers: readonly string[], caller: Caller): string[] {
    const kept = withoutIdentity(headers);
    for (const item of this.#identityOf(caller)) kept.push(item);
    return kept;
  }

  #identityOf(caller: Caller): readonly string[] {
    const key = `${caller.namespace}\u0000${caller.app}`;
    let added = this.#identityByCaller.get(key);
    if (added === undefined) {
      const names = [caller.namespace, caller.app, this.#host.options.appId];
      added = [...identityHeaders].flatMap((name, i) => [name, names[i]!]);
      if (this.#identityByCaller.size >= maxRemembered) this.#identityByCaller.clear();
      this.#identityByCaller.set(key, added);
    }
    return added;
  }
}

/** A list of its own, which the caller may extend. */
export function withoutIdentity(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!identityHeaders.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

export type Traffic = ReturnType<typeof trafficOf>;

function trafficOf(metrics: Metrics) {
  const name = "runtime_service_invocation";
  return {
    sent: metrics.count(`${name}_req_sent_total`, "Requests sent to other apps.", ["dst_app_id", "type"]),
    received: metrics.count(`${name}_req_recv_total`, "Requests received from other apps.", ["src_app_id"]),
    answerSent: metrics.count(`${name}_res_sent_total`, "Answers sent.", ["dst_app_id", "status"]),
    answerReceived: metrics.count(`${name}_res_recv_total`, "Answers received.", [
      "src_app_id",
      "status",
      "type",
    ]),
    latency: metrics.latency(`${name}_res_recv_latency_ms`, "Time to an answer, ms.", [
      "src_app_id",
      "status",
    ]),
  };
}
