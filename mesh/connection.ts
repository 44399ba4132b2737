/**
 * One connection to NATS for the life of a sidecar: connects when a server is there, reconnects for ever, restarts a
 * shared server that Weft owns, and tells who asks whether it is connected. Nothing else in the mesh holds the client.
 */
import { connect, credsAuthenticator, nkeyAuthenticator, type NatsConnection, type Subscription } from "@nats-io/transport-node";
import type { Msg, MsgHdrs, ConnectionOptions, Status } from "@nats-io/transport-node";
import { readFileSync } from "node:fs";
import type { Clock } from "./clock.ts";
import { MeshError } from "./errors.ts";
import type { FoundNats } from "./server/index.ts";
import type { MeshLog } from "./types.ts";

/** Credentials and TLS files, as the flags name them. */
export type NatsAccess = {
  readonly credsFile?: string;
  /** File with an nkey seed. */
  readonly nkeyFile?: string;
  readonly user?: string;
  readonly password?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
};

export type ConnectionSettings = {
  readonly clientName: string;
  readonly inbox: string;
  readonly access: NatsAccess;
  readonly clock: Clock;
  readonly log: MeshLog;
  /** Random number in [0, 1), for jitter. */
  readonly random: () => number;
};

type Listener = (connected: boolean) => void;

/** Wait between attempts, ms, plus as much jitter. */
const retryWaitMs = 100;
/** Smallest max_payload assumed before a server has told its own, bytes. */
const defaultMaxPayloadBytes = 1024 * 1024;

export class MeshConnection {
  readonly settings: ConnectionSettings;
  readonly #findNats: (signal: AbortSignal) => Promise<FoundNats>;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<Listener>();
  #client: NatsConnection | undefined;
  #found: FoundNats | undefined;
  #connected = false;
  #lastProblem = "";

  constructor(settings: ConnectionSettings, findNats: (signal: AbortSignal) => Promise<FoundNats>) {
    this.settings = settings;
    this.#findNats = findNats;
  }

  /** Begins to connect; returns at once. */
  start(): void {
    this.#run().catch((error: unknown) => {
      if (!this.#stop.signal.aborted) this.settings.log("error", `NATS connection ended: ${textOf(error)}`);
    });
  }

  get connected(): boolean {
    return this.#connected;
  }

  get closed(): boolean {
    return this.#stop.signal.aborted;
  }

  /** How NATS was found, in words; before that, why not yet. */
  describe(): { server: string; way: string } {
    const server = this.#client?.getServer() ?? this.#found?.urls.join(",") ?? "none";
    return { server, way: this.#found?.detail ?? (this.#lastProblem || "looking for NATS") };
  }

  maxPayloadBytes(): number {
    return this.#client?.info?.max_payload ?? defaultMaxPayloadBytes;
  }

  /** True when the server says that it belongs to a cluster. */
  clustered(): boolean {
    return this.#client?.info?.cluster !== undefined;
  }

  onChange(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves once connected; rejects when `signal` is aborted or the connection is closed. */
  async ready(signal?: AbortSignal): Promise<void> {
    if (this.#connected) return;
    await new Promise<void>((resolve, reject) => {
      const finish = (error?: unknown): void => {
        off();
        signal?.removeEventListener("abort", onAbort);
        this.#stop.signal.removeEventListener("abort", onClose);
        if (error === undefined) resolve();
        else reject(error instanceof Error ? error : new MeshError("cancelled", String(error)));
      };
      const onAbort = (): void => finish(signal?.reason ?? new MeshError("cancelled", "gave up waiting for NATS"));
      const onClose = (): void => finish(new MeshError("closed", "the mesh is closed"));
      const off = this.onChange((connected) => connected && finish());
      if (signal?.aborted) return onAbort();
      if (this.closed) return onClose();
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#stop.signal.addEventListener("abort", onClose, { once: true });
    });
  }

  /** Waits at most `timeoutMs` for a connection; MeshError `disconnected` after that. */
  async readyWithin(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#connected) return;
    const limit = new AbortController();
    const away = new MeshError("disconnected", `NATS is away (${this.#lastProblem || "not connected yet"})`);
    const timer = this.settings.clock.setTimeout(() => limit.abort(away), timeoutMs);
    try {
      await this.ready(signal === undefined ? limit.signal : AbortSignal.any([limit.signal, signal]));
    } finally {
      timer.cancel();
    }
  }

  /** Sends now. Throws `disconnected` when NATS is away (the client would lose it silently), `too-large` above max_payload. */
  publish(subject: string, payload: Uint8Array, options: { reply?: string; headers?: MsgHdrs } = {}): void {
    const client = this.#client;
    if (client === undefined || !this.#connected) throw new MeshError("disconnected", "NATS is away");
    if (payload.length > this.maxPayloadBytes()) throw tooLarge(payload.length, this.maxPayloadBytes());
    try {
      client.publish(subject, payload, options);
    } catch (cause) {
      const oversize = cause instanceof Error && cause.message.includes("max_payload");
      throw oversize ? tooLarge(payload.length, this.maxPayloadBytes()) : new MeshError("closed", textOf(cause), { cause });
    }
  }

  /**
   * Subscribes now and after every reconnect. The one place that guards callbacks: a throw inside one would kill the
   * client's reader. Call only after `ready`.
   */
  subscribe(subject: string, onMessage: (message: Msg) => void, queue?: string): Subscription {
    if (this.#client === undefined) throw new MeshError("disconnected", "NATS is away");
    const callback = (error: Error | null, message: Msg): void => {
      try {
        if (error === null) onMessage(message);
        else this.settings.log("error", `subscription ${subject}: ${error.message}`);
      } catch (thrown) {
        this.settings.log("error", `handler of ${subject} threw: ${textOf(thrown)}`);
      }
    };
    return this.#client.subscribe(subject, queue === undefined ? { callback } : { callback, queue });
  }

  /** Round trip to the server, so that everything published before has left. */
  async flush(): Promise<void> {
    if (this.#connected) await this.#client?.flush();
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.#stop.abort(new MeshError("closed", "the mesh is closed"));
    this.#setConnected(false);
    await this.#client?.close();
  }

  async #run(): Promise<void> {
    const signal = this.#stop.signal;
    this.#client = await this.#firstConnect(signal);
    if (signal.aborted) return void (await this.#client.close());
    this.#setConnected(true);
    for await (const status of this.#client.status()) {
      if (signal.aborted) return;
      this.#onStatus(status);
    }
  }

  async #firstConnect(signal: AbortSignal): Promise<NatsConnection> {
    for (;;) {
      try {
        this.#found ??= await this.#findNats(signal);
        const { urls } = await this.#found.ensure(signal);
        const client = await connect(this.#clientOptions(urls));
        this.settings.log("info", `${this.#found.detail}; connected to ${client.getServer()}`);
        return client;
      } catch (error) {
        if (signal.aborted) throw error;
        this.#problem(textOf(error));
        await this.settings.clock.sleep(retryWaitMs + this.settings.random() * retryWaitMs, signal);
      }
    }
  }

  #onStatus(status: Status): void {
    if (status.type === "disconnect") {
      this.#setConnected(false);
      this.#problem(`lost ${status.server}`);
      void this.#bringBack();
    } else if (status.type === "reconnect") {
      this.settings.log("info", `NATS is back: ${status.server}`);
      this.#lastProblem = "";
      this.#setConnected(true);
    } else if (status.type === "error") {
      this.settings.log("warn", `NATS says: ${status.error.message}`);
    }
  }

  /** The client reconnects by itself; a shared server of ours must be started again by someone, first come first served. */
  async #bringBack(): Promise<void> {
    const signal = this.#stop.signal;
    while (!this.#connected && !signal.aborted) {
      try {
        const ensured = await this.#found!.ensure(signal);
        if (ensured.restarted) this.#client?.setServers(ensured.urls);
      } catch (error) {
        if (!signal.aborted) this.#problem(textOf(error));
      }
      await this.settings.clock.sleep(retryWaitMs * (2 + this.settings.random()), signal).catch(() => {});
    }
  }

  #setConnected(connected: boolean): void {
    if (this.#connected === connected) return;
    this.#connected = connected;
    for (const listener of [...this.#listeners]) listener(connected);
  }

  #problem(text: string): void {
    if (text === this.#lastProblem) return;
    this.#lastProblem = text;
    this.settings.log("warn", `NATS is away: ${text}; trying again until it is there`);
  }

  #clientOptions(servers: string[]): ConnectionOptions {
    const { access, clientName, inbox } = this.settings;
    const options: ConnectionOptions = {
      servers,
      name: clientName,
      inboxPrefix: inbox,
      maxReconnectAttempts: -1,
      reconnectTimeWait: retryWaitMs,
      reconnectJitter: retryWaitMs,
      pingInterval: 2_000,
      maxPingOut: 2,
      timeout: 2_000,
      noAsyncTraces: true,
      ignoreAuthErrorAbort: true,
    };
    if (access.credsFile !== undefined) options.authenticator = credsAuthenticator(readFileSync(access.credsFile));
    else if (access.nkeyFile !== undefined) options.authenticator = nkeyAuthenticator(readSeed(access.nkeyFile));
    if (access.user !== undefined) options.user = access.user;
    if (access.password !== undefined) options.pass = access.password;
    if (access.tlsCa !== undefined || access.tlsCert !== undefined) {
      options.tls = {
        ...(access.tlsCa === undefined ? {} : { caFile: access.tlsCa }),
        ...(access.tlsCert === undefined ? {} : { certFile: access.tlsCert }),
        ...(access.tlsKey === undefined ? {} : { keyFile: access.tlsKey }),
      };
    }
    return options;
  }
}

function readSeed(file: string): Uint8Array {
  return Buffer.from(readFileSync(file, "utf8").trim());
}

/** The error of a payload above the server's limit. */
export function tooLarge(payloadBytes: number, limitBytes: number): MeshError {
  return new MeshError(
    "too-large",
    `payload of ${payloadBytes} bytes is above NATS' max_payload of ${limitBytes}; raise max_payload in the server's configuration or send less`,
  );
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
