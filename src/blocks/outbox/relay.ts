/**
 * What happens to an event that waits: once its transaction is known to be committed it is published and its marker
 * deleted. README.md tells what is certain about that.
 */
import { type Clock, isMeshError } from "../../../mesh/index.ts";
import { ApiError } from "../../api/errors.ts";
import { asError, textOf } from "../../lib/thrown.ts";
import { unlessAborted } from "../../lib/unless-aborted.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Brokers } from "../pubsub/broker.ts";
import { cloudEventsType } from "../pubsub/envelope.ts";
import type { Publisher } from "../pubsub/publish.ts";
import type { BrokerMessage } from "../pubsub/port.ts";
import type { StateStore } from "../state/port.ts";
import { readWaiting } from "./event.ts";
import type { Rounds } from "./rounds.ts";
import type { OutboxSettings } from "./settings.ts";

/** A state store with its outbox, as it is now. */
export type OutboxStore = {
  readonly name: string;
  readonly port: StateStore;
  readonly settings: OutboxSettings;
};

export type RelayParts = {
  readonly brokers: Brokers;
  readonly publisher: Pick<Publisher, "allow" | "send">;
  readonly rounds: Rounds;
  readonly clock: Clock;
  readonly log: Log;
  /** The stores whose events wait on this topic. Asked anew each time: components may be replaced. */
  readonly storesOf: (waitPubsub: string, waitTopic: string) => readonly OutboxStore[];
};

/** Handles one message of a topic on which events wait. Rejects when the broker shall bring it again. */
export type Relay = (
  waitPubsub: string,
  waitTopic: string,
  message: BrokerMessage,
  signal: AbortSignal,
) => Promise<void>;

/** Waits before each look for the marker, ms: ten seconds in all. */
const firstLooksMs = [1_000, 500, 1_500, 3_000, 3_000, 1_000];
/** The same for an event that was looked for in vain before. */
const laterLooksMs = [1_000];
/** An event without a marker is given up when it comes again so long after its first time, ms. */
const giveUpMs = 120_000;
/** Events that were looked for in vain and may come again; older ones count as new. */
const maxMissed = 10_000;
/** Waits between tries to publish, doubled each time up to the limit, and waits before tries to delete a marker, ms. */
const firstPublishRetryMs = 500;
const maxPublishRetryMs = 10_000;
const deleteRetriesMs = [500, 1_500, 3_000];

export function createRelay(parts: RelayParts): Relay {
  const { rounds, clock, log } = parts;
  /** When an event was first looked for in vain, by marker. */
  const missed = new Map<string, number>();

  /** Whether the broker shall forget an event that has no marker. */
  const isDone = (marker: string, discards: boolean): boolean => {
    if (discards) {
      log.warn(`outbox event ${marker} is discarded: its transaction was not found`);
      return true;
    }
    const sinceMs = missed.get(marker);
    if (sinceMs === undefined) {
      log.warn(`outbox event ${marker} goes back to the broker: its transaction is not found`);
      missed.set(marker, clock.monotonicMs());
      if (missed.size > maxMissed) missed.delete(missed.keys().next().value!);
      return false;
    }
    if (clock.monotonicMs() - sinceMs < giveUpMs) return false;
    log.error(`outbox event ${marker} is given up: its transaction was not found for ${giveUpMs / 1000} s`);
    return true;
  };

  return async (waitPubsub, waitTopic, message, signal) => {
    const event = readWaiting(message.data);
    if (event === undefined)
      return log.error(`a message on topic ${waitTopic} of ${waitPubsub} is no outbox event; it is dropped`);
    const { marker } = event;
    const own = rounds.get(marker);
    const outcome = own && (await unlessAborted(own.outcome, signal));
    if (outcome === "refused") return rounds.forget(marker);
    const stores = (): readonly OutboxStore[] => parts.storesOf(waitPubsub, waitTopic);
    const looksMs = missed.has(marker) ? laterLooksMs : firstLooksMs;
    const store =
      (outcome === "committed" ? stores().find(({ name }) => name === own?.store) : undefined) ??
      (await findStore(stores, marker, { looksMs, clock, signal }));
    if (store === undefined) {
      const asked = stores();
      const discards = asked.every(({ settings }) => settings.discardsMissing);
      // Without a store nothing is known.
      if (asked.length > 0 && isDone(marker, discards)) return void missed.delete(marker);
      throw new Error(`the transaction of outbox event ${marker} is not found`);
    }
    await publish(parts, store.settings, event, signal);
    await deleteMarker(parts, store, marker, signal);
    rounds.forget(marker);
    missed.delete(marker);
  };
}

/** The store that has the marker; undefined when none has it in time. Rejects when a store cannot be asked. */
async function findStore(
  stores: () => readonly OutboxStore[],
  marker: string,
  { looksMs, clock, signal }: { looksMs: readonly number[]; clock: Clock; signal: AbortSignal },
): Promise<OutboxStore | undefined> {
  let failure: Error | undefined;
  for (const waitMs of looksMs) {
    await clock.sleep(waitMs, signal);
    failure = undefined;
    for (const store of stores()) {
      try {
        const found = await store.port.get(marker, { consistency: "strong", metadata: {}, signal });
        if (found !== undefined) return store;
      } catch (error) {
        failure = asError(error);
      }
    }
  }
  if (failure !== undefined) throw failure;
  return undefined;
}

/**
 * Keeps trying as long as the subscription lasts: some brokers forget an event whose handler failed. Rejects when
 * trying again cannot help.
 */
async function publish(
  { brokers, publisher, clock, log }: RelayParts,
  { publishPubsub, publishTopic }: OutboxSettings,
  event: NonNullable<ReturnType<typeof readWaiting>>,
  signal: AbortSignal,
): Promise<void> {
  const { marker } = event;
  const data = event.publishedAs(publishPubsub, publishTopic);
  for (let waitMs = firstPublishRetryMs; ; waitMs = Math.min(waitMs * 2, maxPublishRetryMs)) {
    try {
      const broker = brokers.get(publishPubsub);
      if (broker === undefined) throw new Error(`pubsub ${publishPubsub} is not found`);
      publisher.allow({ broker, topic: publishTopic, raw: false });
      const topic = broker.stored(publishTopic);
      const message = { topic, data, metadata: {}, contentType: cloudEventsType, id: marker };
      return await publisher.send(broker, message, signal, "grpc");
    } catch (error) {
      const told = `outbox event ${marker} cannot be published to topic ${publishTopic} of ${publishPubsub}`;
      log.error(`${told}: ${textOf(error)}`);
      if (error instanceof ApiError || isMeshError(error, "too-large") || signal.aborted) throw error;
    }
    await clock.sleep(waitMs, signal);
  }
}

/** A marker that cannot be deleted stays: the event is out, and must not go out again for it. */
async function deleteMarker(
  { clock, log }: RelayParts,
  { name, port }: OutboxStore,
  marker: string,
  signal: AbortSignal,
): Promise<void> {
  const write = { kind: "delete", key: marker, etag: undefined, createOnly: false, metadata: {} } as const;
  for (const waitMs of [...deleteRetriesMs, undefined]) {
    try {
      return await port.delete(write, signal);
    } catch (error) {
      if (waitMs === undefined || signal.aborted)
        return log.warn(`state store ${name}: key ${marker} of the outbox stays: ${textOf(error)}`);
    }
    await clock.sleep(waitMs, signal).catch(() => {});
  }
}
