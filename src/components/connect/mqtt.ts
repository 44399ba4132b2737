/**
 * A connection to an MQTT 3.1.1 broker that reconnects for ever and subscribes again, with acknowledgement by the
 * receiver's outcome: what is not handled is not acknowledged, and the broker sends it again to a new connection.
 */
import type { IClientOptions, MqttClient, IPublishPacket } from "mqtt";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { createReach, type Reach } from "./reach.ts";

/** Metadata fields of all MQTT components. */
export const mqttFields = {
  url: {
    kind: "string",
    required: true,
    description: "Broker, e.g. mqtt://user:password@host:1883; also tcp, ssl, mqtts, tls",
  },
  retain: { kind: "boolean", default: "false", description: "The broker keeps the last message of a topic" },
  cleanSession: {
    kind: "boolean",
    default: "false",
    description: "Without it the broker keeps subscriptions and messages while this client is away",
  },
  caCert: { kind: "string", description: "Certificates to trust, PEM" },
  clientCert: { kind: "string", description: "Certificate to show to the broker, PEM" },
  clientKey: { kind: "string", secret: true, description: "Its private key, PEM" },
} as const satisfies MetadataSchema;

export type MqttSettings = ComponentContext<typeof mqttFields>["metadata"];

/** Resolves: acknowledge. Rejects: leave it unacknowledged. */
export type MqttHandler = (message: MqttMessage, signal: AbortSignal) => Promise<void>;

export type MqttMessage = { readonly topic: string; readonly data: Uint8Array; readonly retained: boolean };

export type MqttSubscription = { stop(graceMs: number): Promise<void> };

export type Mqtt = {
  /** Resolves when the broker has it (QoS 1 and 2) or it is sent (0). Rejects after 20 s. */
  publish(topic: string, data: Uint8Array, options: { qos: Qos; retain: boolean }): Promise<void>;
  /** A filter may have wildcards; `qos` 0 or 1. `keep`: the broker goes on to keep messages for it after `stop`. */
  subscribe(
    filter: string,
    options: { qos: 0 | 1; keep: boolean },
    handler: MqttHandler,
  ): Promise<MqttSubscription>;
  /** Unix ms; undefined while connected. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

export type Qos = 0 | 1 | 2;

const connectTimeoutMs = 10_000;
const publishTimeoutMs = 20_000;
const reconnectMs = 2_000;
/** Handlers at once on one connection; further messages wait in the socket. */
const maxRunning = 1_000;
/** How long a message waits for a subscription to its topic, ms. */
const strayMs = 60_000;

type Parts = Pick<ComponentContext, "clock" | "log" | "signal">;

/** Rejects when the broker cannot be reached or refuses; later outages are overcome in the background. */
export async function connectMqtt(settings: MqttSettings, clientId: string, parts: Parts): Promise<Mqtt> {
  const { connectAsync } = await import("mqtt");
  const url = brokerUrl(settings.url);
  const options: IClientOptions = {
    clientId,
    clean: settings.cleanSession,
    protocolVersion: 4,
    connectTimeout: connectTimeoutMs,
    reconnectPeriod: reconnectMs,
    resubscribe: true,
    keepalive: 30,
    ...tlsOf(settings),
  };
  let client: MqttClient;
  try {
    client = await connectAsync(url.href, options, false);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message || cause.name : String(cause);
    throw new Error(`cannot connect to ${url.host}: ${why}`, { cause });
  }
  const reach = createReach(`mqtt broker at ${url.host}`, parts);
  client.on("error", (error) => parts.log.debug(`connection to ${url.host}: ${error.message}`));
  client.on("close", () => reach.lost("the connection is closed"));
  client.on("connect", () => reach.found());
  return new Connection(client, parts, reach);
}

/** Schemes of other clients become those of this library. */
function brokerUrl(text: string): URL {
  const url = URL.parse(text.replace(/^(tcp|mqtt):/, "mqtt:").replace(/^(ssl|tls|mqtts):/, "mqtts:"));
  if (url === null || !["mqtt:", "mqtts:"].includes(url.protocol)) {
    throw new Error(`metadata field "url": "${text}" is no broker address; write e.g. mqtt://host:1883`);
  }
  return url;
}

function tlsOf({ caCert, clientCert, clientKey }: MqttSettings): IClientOptions {
  if ((clientCert === undefined) !== (clientKey === undefined)) {
    throw new Error('metadata fields "clientCert" and "clientKey" go together: give both or none');
  }
  return {
    ...(caCert === undefined ? {} : { ca: caCert }),
    ...(clientCert === undefined ? {} : { cert: clientCert, key: clientKey! }),
  };
}

type Line = {
  readonly filter: string;
  readonly matches: (topic: string) => boolean;
  readonly handler: MqttHandler;
  readonly running: Set<Promise<void>>;
  readonly stopped: AbortController;
  taking: boolean;
};

class Connection implements Mqtt {
  readonly #client: MqttClient;
  readonly #parts: Parts;
  readonly #reach: Reach;
  readonly #lines = new Set<Line>();
  #running = 0;
  /** Messages that came while nobody took them; the broker sends them again only to a new connection. */
  #unclaimed: IPublishPacket[] = [];
  /** Topics of subscriptions that have stopped and may come again. */
  readonly #left: ((topic: string) => boolean)[] = [];
  /** Lets the next message in once there is room. */
  #resume: (() => void) | undefined;

  constructor(client: MqttClient, parts: Parts, reach: Reach) {
    this.#client = client;
    this.#reach = reach;
    this.#parts = parts;
    // The library acknowledges when this reports success, and takes the next packet when it reports anything. An
    // error at once therefore means: go on reading, somebody else acknowledges.
    client.on("close", () => (this.#unclaimed = []));
    client.handleMessage = (packet, done) => {
      void this.#receive(packet);
      const taken = (): void => done(packet.qos === 0 ? undefined : new Error("acknowledged by its handler"));
      if (this.#running < maxRunning) taken();
      else this.#resume = taken;
    };
  }

  async publish(topic: string, data: Uint8Array, options: { qos: Qos; retain: boolean }): Promise<void> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = this.#parts.clock.setTimeout(
      () => reject(new Error(`the broker did not take the message within ${publishTimeoutMs} ms`)),
      publishTimeoutMs,
    );
    try {
      await Promise.race([this.#client.publishAsync(topic, Buffer.from(data), options), late]);
    } finally {
      timer.cancel();
    }
  }

  async subscribe(
    filter: string,
    { qos, keep }: { qos: 0 | 1; keep: boolean },
    handler: MqttHandler,
  ): Promise<MqttSubscription> {
    const line: Line = {
      filter,
      matches: matcher(filter),
      handler,
      running: new Set(),
      stopped: new AbortController(),
      taking: true,
    };
    this.#lines.add(line);
    try {
      const granted = await this.#client.subscribeAsync(filter, { qos });
      const waiting = this.#unclaimed.filter((packet) => line.matches(packet.topic));
      this.#unclaimed = this.#unclaimed.filter((packet) => !waiting.includes(packet));
      for (const packet of waiting) void this.#receive(packet);
      if (granted.some((grant) => grant.qos > 2)) throw new Error(`the broker refuses topic ${filter}`);
    } catch (error) {
      this.#lines.delete(line);
      throw error;
    }
    return { stop: (graceMs) => this.#stop(line, graceMs, keep) };
  }

  awaySinceMs(): number | undefined {
    return this.#reach.awaySinceMs();
  }

  close(): Promise<void> {
    this.#reach.close();
    return this.#client.endAsync(true);
  }

  async #stop(line: Line, graceMs: number, keep: boolean): Promise<void> {
    line.taking = false;
    const late = this.#parts.clock.setTimeout(
      () => line.stopped.abort(new Error("the handler took longer than the grace period")),
      graceMs,
    );
    await Promise.all(line.running);
    late.cancel();
    line.stopped.abort(new Error("the subscription has ended"));
    this.#lines.delete(line);
    if (keep && this.#left.length < maxRunning) this.#left.push(line.matches);
    if (keep || [...this.#lines].some(({ filter }) => filter === line.filter)) return;
    if (this.#client.connected) await this.#client.unsubscribeAsync(line.filter).catch(() => undefined);
  }

  /**
   * Messages of a subscription that stopped wait for it. Those of a topic that nobody here has read, which a session of
   * earlier days goes on to deliver, would fill what the broker sends unacknowledged: they go after a while.
   */
  #keepFor(packet: IPublishPacket): void {
    this.#unclaimed.push(packet);
    if (this.#left.some((matches) => matches(packet.topic))) return;
    this.#parts.clock.setTimeout(() => {
      if (!this.#unclaimed.includes(packet)) return;
      this.#unclaimed = this.#unclaimed.filter((other) => other !== packet);
      this.#parts.log.warn(`a message of topic ${packet.topic} is dropped: nothing here subscribes to it`);
      if (packet.messageId !== undefined) acknowledge(this.#client, packet.messageId);
    }, strayMs);
  }

  /** Acknowledges when every subscription that the topic fits has handled the message. */
  async #receive(packet: IPublishPacket): Promise<void> {
    const { topic, payload, retain, qos, messageId } = packet;
    const data = typeof payload === "string" ? Buffer.from(payload) : payload;
    const lines = [...this.#lines].filter((line) => line.taking && line.matches(topic));
    this.#running += 1;
    try {
      if (lines.length === 0) {
        if (qos > 0 && this.#unclaimed.length < maxRunning) this.#keepFor(packet);
        return;
      }
      await Promise.all(lines.map((line) => hand(line, { topic, data, retained: retain })));
      if (qos > 0 && messageId !== undefined) acknowledge(this.#client, messageId);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#parts.log.warn(`a message of topic ${topic} was not handled and is not acknowledged: ${text}`);
    } finally {
      this.#running -= 1;
      const resume = this.#resume;
      this.#resume = undefined;
      resume?.();
    }
  }
}

function hand(line: Line, message: MqttMessage): Promise<void> {
  const run = line.handler(message, line.stopped.signal);
  const settled = run.then(
    () => {},
    () => {},
  );
  line.running.add(settled);
  void settled.finally(() => line.running.delete(settled));
  return run;
}

/** The library has no public way to acknowledge later; test/contract/pubsub.test.ts shows that this one works. */
function acknowledge(client: MqttClient, messageId: number): void {
  const inside = client as unknown as { _sendPacket(packet: { cmd: "puback"; messageId: number }): void };
  if (client.connected) inside._sendPacket({ cmd: "puback", messageId });
}

/** `+` is one part, `#` at the end any number; `$share/<group>/` belongs to the broker. */
function matcher(filter: string): (topic: string) => boolean {
  const wanted = filter.replace(/^\$share\/[^/]+\//, "").split("/");
  return (topic) => {
    const parts = topic.split("/");
    for (let at = 0; at < wanted.length; at++) {
      if (wanted[at] === "#") return true;
      if (at >= parts.length || (wanted[at] !== "+" && wanted[at] !== parts[at])) return false;
    }
    return wanted.length === parts.length;
  };
}
