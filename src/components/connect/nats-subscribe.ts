/**
 * Reads a subject of core NATS: a number of handlers at once, answers for those who asked. What comes while nobody
 * reads is lost, as NATS has it.
 */
import type { MsgHdrs, Subscription } from "@nats-io/transport-node";
import type { Clock } from "../../../mesh/index.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import { endSubscription, type NatsLink, type NatsMessage } from "./nats.ts";

export type SubjectReading = {
  readonly link: NatsLink;
  readonly subject: string;
  /** Members of a group share the messages; undefined: each reader gets all. */
  readonly group: string | undefined;
  /** Handlers at once. */
  readonly concurrency: number;
  /** Resolves with the answer for who asked. */
  readonly handler: (message: NatsMessage, signal: AbortSignal) => Promise<Uint8Array>;
  readonly clock: Clock;
  readonly log: Log;
};

/** Messages that wait for a handler; more are dropped. */
const maxWaiting = 1_000;

/** Resolves when the server knows of the subscription. */
export async function readSubject(
  reading: SubjectReading,
): Promise<{ stop(graceMs: number): Promise<void> }> {
  const { headers } = await import("@nats-io/transport-node");
  const reader = new Reader(reading, headers);
  await reading.link.client.flush();
  return reader;
}

class Reader {
  readonly #reading: SubjectReading;
  readonly #headers: () => MsgHdrs;
  readonly #subscription: Subscription;
  readonly #stopped = new AbortController();
  readonly #waiting: NatsMessage[] = [];
  readonly #running = new Set<Promise<void>>();
  #dropped = 0;

  constructor(reading: SubjectReading, headers: () => MsgHdrs) {
    this.#reading = reading;
    this.#headers = headers;
    const { link, subject, group, log } = reading;
    const callback = (error: Error | null, message: NatsMessage): void => {
      // A throw here would end the connection's reader.
      try {
        if (error === null) this.#take(message);
        else log.error(`nats: ${subject}: ${error.message}`);
      } catch (thrown) {
        log.error(`nats: ${subject}: ${textOf(thrown)}`);
      }
    };
    const queue = group === undefined ? {} : { queue: group };
    this.#subscription = link.client.subscribe(subject, { callback, ...queue });
  }

  /** What waits is handled within the grace too: nobody keeps it. */
  async stop(graceMs: number): Promise<void> {
    const limit = Promise.withResolvers<void>();
    const late = this.#reading.clock.setTimeout(limit.resolve, graceMs);
    await Promise.race([endSubscription(this.#subscription, this.#reading.link), limit.promise]);
    await Promise.race([this.#idle(), limit.promise]);
    late.cancel();
    this.#waiting.length = 0;
    this.#stopped.abort(new Error("the subscription has ended"));
  }

  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  #take(message: NatsMessage): void {
    const { subject, log } = this.#reading;
    if (this.#waiting.length >= maxWaiting) {
      if (this.#dropped++ % maxWaiting === 0)
        log.warn(`${subject}: ${maxWaiting} messages wait for handlers; what comes is dropped`);
      return this.#refuse(message, "503", "too many messages wait");
    }
    this.#waiting.push(message);
    this.#next();
  }

  #next(): void {
    while (this.#running.size < this.#reading.concurrency) {
      const message = this.#waiting.shift();
      if (message === undefined) return;
      const run = this.#handle(message).finally(() => {
        this.#running.delete(run);
        this.#next();
      });
      this.#running.add(run);
    }
  }

  /** Never rejects. */
  async #handle(message: NatsMessage): Promise<void> {
    const { handler, log } = this.#reading;
    try {
      const answer = await handler(message, this.#stopped.signal);
      if (message.reply) message.respond(answer);
    } catch (error) {
      log.debug(`a message of ${message.subject} was not handled: ${textOf(error)}`);
      this.#refuse(message, "500", "the message was not handled");
    }
  }

  /** Tells who asked, in the form of NATS' services. An answer that cannot be sent is the same as none. */
  #refuse(message: NatsMessage, code: string, text: string): void {
    if (!message.reply || !this.#reading.link.connected()) return;
    const headers = this.#headers();
    headers.set("Nats-Service-Error-Code", code);
    headers.set("Nats-Service-Error", text);
    try {
      message.respond("", { headers });
    } catch (error) {
      this.#reading.log.debug(`nats: ${textOf(error)}`);
    }
  }
}
