/**
 * Whether a component can reach what it works on, for the metadata and health APIs: told by the events of a lasting
 * connection, or read off the outcome of calls.
 */
import type { Clock, Timer } from "../../../mesh/index.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import { NoAnswer } from "./deadline.ts";

export type Reach = {
  /** Unix ms since when it is out of reach; undefined while it is not. */
  awaySinceMs(): number | undefined;
  lost(reason: string): void;
  found(): void;
  /** Gives the outcome of a call back: a broken connection means lost, any other outcome found. */
  watch<T>(call: Promise<T>): Promise<T>;
  close(): void;
};

/** How often what was lost is tried, ms. */
const probeMs = 5_000;

/** `what` names it in the log. `probe` tries it while it is lost; without it the next call tells. */
export function createReach(
  what: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
  probe?: () => Promise<unknown>,
): Reach {
  let sinceMs: number | undefined;
  let timer: Timer | undefined;
  let closed = false;
  const later = (): void => {
    timer?.cancel();
    if (probe !== undefined && !closed && sinceMs !== undefined) timer = clock.setTimeout(attempt, probeMs);
  };
  const attempt = (): void => {
    probe!().then(reach.found, later);
  };
  const reach: Reach = {
    awaySinceMs: () => sinceMs,
    lost(reason) {
      if (sinceMs !== undefined || closed) return;
      sinceMs = clock.nowMs();
      log.warn(`${what} is away: ${reason}; trying again until it is there`);
      later();
    },
    found() {
      if (sinceMs === undefined) return;
      sinceMs = undefined;
      timer?.cancel();
      if (!closed) log.info(`${what} is back`);
    },
    async watch(call) {
      try {
        const result = await call;
        reach.found();
        return result;
      } catch (error) {
        if (isBroken(error)) reach.lost(textOf(error));
        else reach.found();
        throw error;
      }
    },
    close() {
      closed = true;
      timer?.cancel();
    },
  };
  return reach;
}

/** Codes of Node, undici, nodemailer, the Kafka and MySQL clients, and those of databases that stop or start. */
const brokenCodes: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "ECONNECTION",
  "ESOCKET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_SOCKET",
  "PLT_KFK_NETWORK",
  "PLT_KFK_TIMEOUT",
  "PROTOCOL_CONNECTION_LOST",
  "ER_SERVER_SHUTDOWN",
  "57P01",
  "57P03",
]);

/** The connection, not the server's answer, is at fault. */
function isBroken(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  if (thrown instanceof NoAnswer) return true;
  const { code, cause } = thrown as { code?: unknown; cause?: unknown };
  if (typeof code === "string" && brokenCodes.has(code)) return true;
  // pg has no code for these.
  if (
    /^Connection terminated|connection timeout|timeout exceeded when trying to connect/i.test(thrown.message)
  )
    return true;
  const inner: unknown[] = thrown instanceof AggregateError ? thrown.errors : [];
  return [...inner, cause].some(isBroken);
}
