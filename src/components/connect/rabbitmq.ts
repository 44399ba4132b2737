/**
 * A connection to RabbitMQ that reconnects for ever, channels that are set up again with it, and the message
 * properties that components take from request metadata.
 */
import { textOf } from "../../lib/thrown.ts";
import { askedTtl, readTtlMs } from "../../lib/time-to-live.ts";
import type { ConfirmChannel, ConsumeMessage, Options, RecoveringChannelModel } from "amqplib";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { createReach } from "./reach.ts";

/** Certificates of both kinds of components. */
export const rabbitCertificates = {
  caCert: { kind: "string", description: "Certificates to trust, PEM" },
  clientCert: { kind: "string", description: "Certificate to show to the broker, PEM" },
  clientKey: { kind: "string", secret: true, description: "Its private key, PEM" },
} as const satisfies MetadataSchema;

export type RabbitOptions = {
  /** `amqp://` or `amqps://`. */
  readonly url: string;
  readonly name: string;
  readonly reconnectMs: number;
  readonly heartbeatMs?: number | undefined;
  readonly external?: boolean | undefined;
  readonly caCert?: string | undefined;
  readonly clientCert?: string | undefined;
  readonly clientKey?: string | undefined;
};

/** A channel that comes back: `setup` runs on each new one before anybody uses it. */
export type LastingChannel = {
  /** The channel of now; waits for the next one while there is none. Rejects after 10 s or at the signal. */
  get(signal: AbortSignal): Promise<ConfirmChannel>;
  close(): Promise<void>;
};

export type Rabbit = {
  /** Resolves when the first channel is set up; rejects when that fails. */
  channel(setup: (channel: ConfirmChannel) => Promise<void>): Promise<LastingChannel>;
  /** Unix ms; undefined while connected. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

const connectTimeoutMs = 4_000;
const maxReconnectMs = 30_000;
const channelWaitMs = 10_000;
/** Tries of a publish, and the wait between them, ms (Dapr's). */
const publishTries = 3;
const publishWaitMs = 2_000;
const confirmTimeoutMs = 20_000;

type Parts = Pick<ComponentContext, "clock" | "log">;

/** Rejects when the broker cannot be reached or refuses; later outages are overcome in the background. */
export async function connectRabbit(options: RabbitOptions, parts: Parts): Promise<Rabbit> {
  const url = readUrl(options);
  const { connect, credentials } = await import("amqplib");
  let model: RecoveringChannelModel;
  try {
    model = await connect(url.href, {
      timeout: connectTimeoutMs,
      clientProperties: { connection_name: options.name },
      ...(options.external === true ? { credentials: credentials.external() } : {}),
      ...tlsOf(options),
      recovery: { initialMaxRetries: 0, initialDelay: options.reconnectMs, maxDelay: maxReconnectMs },
    });
  } catch (cause) {
    throw new Error(`cannot connect to ${url.host}: ${textOf(cause)}`, { cause });
  }
  const { log } = parts;
  const reach = createReach(`rabbitmq at ${url.host}`, parts);
  model.on("error", (error) => log.debug(`connection to ${url.host}: ${error.message}`));
  model.on("disconnect", (error: Error | undefined) => reach.lost(error?.message ?? "closed by the broker"));
  model.on("connect", () => reach.found());
  return {
    channel: (setup) => openChannel(model, setup, options.reconnectMs, parts),
    awaySinceMs: () => reach.awaySinceMs(),
    close() {
      reach.close();
      return model.close();
    },
  };
}

function readUrl({ url: text, heartbeatMs }: RabbitOptions): URL {
  const url = URL.parse(text);
  if (url === null || !/^amqps?:$/.test(url.protocol)) {
    const shown = text.replace(/\/\/.*@/, "//");
    throw new Error(`"${shown}" is no broker address; write e.g. amqp://user:password@host:5672`);
  }
  if (heartbeatMs !== undefined && !url.searchParams.has("heartbeat")) {
    url.searchParams.set("heartbeat", String(Math.ceil(heartbeatMs / 1000)));
  }
  return url;
}

function tlsOf({ caCert, clientCert, clientKey }: RabbitOptions): Record<string, string | string[]> {
  if ((clientCert === undefined) !== (clientKey === undefined)) {
    throw new Error('metadata fields "clientCert" and "clientKey" go together: give both or none');
  }
  return {
    ...(caCert === undefined ? {} : { ca: [caCert] }),
    ...(clientCert === undefined ? {} : { cert: clientCert, key: clientKey! }),
  };
}

async function openChannel(
  model: RecoveringChannelModel,
  setup: (channel: ConfirmChannel) => Promise<void>,
  reconnectMs: number,
  parts: Parts,
): Promise<LastingChannel> {
  const lasting = new Lasting(model, setup, reconnectMs, parts);
  try {
    await lasting.open();
  } catch (error) {
    await lasting.close();
    throw error;
  }
  return lasting;
}

class Lasting implements LastingChannel {
  readonly #model: RecoveringChannelModel;
  readonly #setup: (channel: ConfirmChannel) => Promise<void>;
  readonly #reconnectMs: number;
  readonly #parts: Parts;
  readonly #closing = new AbortController();
  #channel: ConfirmChannel | undefined;
  #reopening = false;
  #next = Promise.withResolvers<void>();

  constructor(
    model: RecoveringChannelModel,
    setup: (channel: ConfirmChannel) => Promise<void>,
    reconnectMs: number,
    parts: Parts,
  ) {
    this.#model = model;
    this.#setup = setup;
    this.#reconnectMs = reconnectMs;
    this.#parts = parts;
  }

  async get(signal: AbortSignal): Promise<ConfirmChannel> {
    for (;;) {
      if (this.#channel !== undefined) return this.#channel;
      signal.throwIfAborted();
      const late = new AbortController();
      const waited = this.#parts.clock
        .sleep(channelWaitMs, AbortSignal.any([signal, late.signal]))
        .then(() => {
          throw new Error(`not connected to the broker for ${channelWaitMs} ms`);
        });
      try {
        await Promise.race([this.#next.promise, waited]);
      } finally {
        late.abort();
        waited.catch(() => {});
      }
    }
  }

  /** Opens the channel of now. Rejects when it cannot be had or set up. */
  async open(): Promise<void> {
    const channel = await this.#model.createConfirmChannel();
    channel.on("error", (error) => this.#parts.log.warn(`channel: ${error.message}`));
    channel.once("close", () => {
      if (this.#channel === channel) this.#channel = undefined;
      if (!this.#closing.signal.aborted) void this.#reopen();
    });
    await this.#setup(channel);
    this.#channel = channel;
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the channel is not needed any more"));
    const channel = this.#channel;
    this.#channel = undefined;
    await channel?.close().catch(() => {});
  }

  async #reopen(): Promise<void> {
    if (this.#reopening) return;
    this.#reopening = true;
    const { signal } = this.#closing;
    while (this.#channel === undefined && !signal.aborted) {
      try {
        await this.#parts.clock.sleep(this.#reconnectMs, signal);
        await this.#model.waitForConnect();
        await this.open();
      } catch (error) {
        if (!signal.aborted)
          this.#parts.log.warn(`the broker's channel cannot be set up yet: ${textOf(error)}`);
      }
    }
    this.#reopening = false;
  }
}

/** Resolves when the broker has the message. Tries three times, 2 s apart. */
export async function publishConfirmed(
  channel: LastingChannel,
  target: { readonly exchange: string; readonly key: string },
  data: Uint8Array,
  options: Options.Publish,
  clock: ComponentContext["clock"],
  signal: AbortSignal,
): Promise<void> {
  const content = Buffer.from(data);
  for (let tries = 1; ; tries++) {
    try {
      return await publishOnce(await channel.get(signal), target, content, options, clock);
    } catch (error) {
      if (tries === publishTries || signal.aborted) throw error;
      await clock.sleep(publishWaitMs, signal);
    }
  }
}

function publishOnce(
  channel: ConfirmChannel,
  { exchange, key }: { readonly exchange: string; readonly key: string },
  content: Buffer,
  options: Options.Publish,
  clock: ComponentContext["clock"],
): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = clock.setTimeout(
      () => reject(new Error(`the broker did not confirm the message within ${confirmTimeoutMs} ms`)),
      confirmTimeoutMs,
    );
    channel.publish(exchange, key, content, options, (error: unknown) => {
      timer.cancel();
      if (error === null || error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error("the broker refused the message"));
    });
  });
}

export type RabbitHandler = (message: ConsumeMessage, signal: AbortSignal) => Promise<void>;

export type RabbitConsumerOptions = {
  /** One handler at a time. */
  readonly single: boolean;
  /** The broker forgets messages when it sends them. */
  readonly autoAck: boolean;
  /** What failed goes back to the queue. */
  readonly requeue: boolean;
  readonly prefetch: number;
};

export type RabbitSubscription = { stop(graceMs: number): Promise<void> };

/** Handlers at once where the user sets no limit. */
const unlimitedPrefetch = 1_000;

/** Reads a queue that `declare` makes, from now on and after every reconnect. */
export async function consume(
  rabbit: Rabbit,
  declare: (channel: ConfirmChannel) => Promise<string>,
  options: RabbitConsumerOptions,
  handler: RabbitHandler,
  { clock, log }: Parts,
): Promise<RabbitSubscription> {
  const running = new Set<Promise<void>>();
  const stopped = new AbortController();
  let taking = true;
  let tag = "";
  const lasting = await rabbit.channel(async (channel) => {
    const queue = await declare(channel);
    await channel.prefetch(options.single ? 1 : options.prefetch || unlimitedPrefetch);
    const settle = async (message: ConsumeMessage): Promise<void> => {
      try {
        await handler(message, stopped.signal);
        if (!options.autoAck) channel.ack(message);
      } catch (error) {
        log.debug(`a message of queue ${queue} was not handled: ${textOf(error)}`);
        if (!options.autoAck) attempt(() => channel.nack(message, false, options.requeue || !taking));
      }
    };
    const take = (message: ConsumeMessage | null): void => {
      // Null: the queue was deleted; a new channel declares it again.
      if (message === null) return void channel.close().catch(() => {});
      if (!taking) return options.autoAck ? undefined : attempt(() => channel.nack(message, false, true));
      const run = settle(message).catch((error: unknown) => log.debug(`acknowledgement: ${textOf(error)}`));
      running.add(run);
      void run.finally(() => running.delete(run));
    };
    ({ consumerTag: tag } = await channel.consume(queue, take, { noAck: options.autoAck }));
  });
  return {
    async stop(graceMs) {
      taking = false;
      const channel = await lasting.get(AbortSignal.abort(new Error("stopping"))).catch(() => undefined);
      await channel?.cancel(tag).catch(() => {});
      const late = clock.setTimeout(
        () => stopped.abort(new Error("the handler took longer than the grace period")),
        graceMs,
      );
      await Promise.all(running);
      late.cancel();
      stopped.abort(new Error("the subscription has ended"));
      await lasting.close();
    },
  };
}

/** A channel that closed meanwhile throws; the broker gives its messages back by itself. */
function attempt(task: () => void): void {
  try {
    task();
  } catch {
    // See above.
  }
}

type Metadata = Readonly<Record<string, string>>;

/** Ten years; above it RabbitMQ closes the channel, under the messages of others too. */
const maxExpirationMs = 10 * 365 * 24 * 60 * 60_000;

/**
 * Properties that request metadata give to a message. A time to live that is none is left out; throws Error for a
 * priority that is none.
 */
export function messageProperties(metadata: Metadata, defaultTtlMs: number | undefined): Options.Publish {
  const value = (name: string): string | undefined => {
    const found = Object.entries(metadata).find(([key]) => key.toLowerCase() === name);
    return found === undefined || found[1] === "" ? undefined : found[1];
  };
  const priority = value("priority");
  if (priority !== undefined && !(/^\d{1,3}$/.test(priority) && Number(priority) <= 255)) {
    throw new Error(`metadata priority "${priority}" is no number from 0 to 255`);
  }
  const ttlMs = readTtlMs(askedTtl(metadata)) ?? defaultTtlMs;
  const expirationMs = Math.min(Math.max(0, Math.floor(ttlMs ?? 0)), maxExpirationMs);
  const given = {
    contentType: value("contenttype"),
    messageId: value("messageid"),
    correlationId: value("correlationid"),
    type: value("type"),
    expiration: ttlMs === undefined ? undefined : String(expirationMs),
    priority: priority === undefined ? undefined : Number(priority),
  };
  return Object.fromEntries(Object.entries(given).filter(([, entry]) => entry !== undefined));
}
