/** Notifications of PostgreSQL on a connection of their own, which is made again as often as it breaks. */
import type { Client } from "pg";
import type { Clock } from "../../../mesh/index.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";

export type ListenInit = {
  /** A client that is not connected yet. */
  readonly makeClient: () => Client;
  /** An SQL name as it stands in the statement: without quotes it is folded to lower case. */
  readonly channel: string;
  readonly onPayload: (payload: string) => void;
  readonly clock: Clock;
  readonly log: Log;
};

export type Listening = { stop(): Promise<void> };

/** Waits before another attempt to connect, ms. */
const firstWaitMs = 200;
const longestWaitMs = 5_000;

/** Resolves when it listens; rejects when it cannot at first. What is sent while the connection is away is lost. */
export async function listenOn({
  makeClient,
  channel,
  onPayload,
  clock,
  log,
}: ListenInit): Promise<Listening> {
  const ending = new AbortController();
  const { signal } = ending;
  let current: Client | undefined;

  const connect = async (): Promise<void> => {
    const client = makeClient();
    // Without a listener an error of the connection would end the process.
    client.on("error", (error) => log.warn(`postgres: listening to ${channel} broke off: ${error.message}`));
    client.on("notification", ({ payload = "" }) => onPayload(payload));
    client.once("end", () => {
      if (current === client && !signal.aborted) void connectAgain();
    });
    current = client;
    try {
      await client.connect();
      await client.query(`LISTEN ${channel}`);
    } catch (error) {
      current = undefined;
      await client.end().catch(() => {});
      throw error;
    }
    if (signal.aborted) await client.end();
  };
  const connectAgain = async (): Promise<void> => {
    for (let waitMs = firstWaitMs; !signal.aborted; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
      await clock.sleep(waitMs, signal).catch(() => {});
      if (signal.aborted) return;
      try {
        return await connect();
      } catch (error) {
        log.debug(`postgres: listening to ${channel} again failed: ${textOf(error)}`);
      }
    }
  };

  await connect();
  return {
    async stop() {
      ending.abort(new Error("nobody listens any more"));
      await current?.end();
    },
  };
}
