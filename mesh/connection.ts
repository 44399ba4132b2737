/**
 * One connection to NATS for the life of a sidecar: connects when a server is there, reconnects for ever, restarts a
 * shared server that Weft owns, and tells who asks whether it is connected. Nothing else in the mesh holds the client;
 * components of the sidecar may use it for subjects that are their own.
 */
import { connect, errors, type NatsConnection, type Subscription } from "@nats-io/transport-node";
import type { ConnectionOptions, Msg, PublishOptions, Status } from "@nats-io/transport-node";
import { accessOptions, type NatsAccess } from "./access.ts";
import { destroySocket, publishUncopied } from "./client-socket.ts";
import type { Clock } from "./clock.ts";
import { MeshError, cancelledBy, textOf } from "./errors.ts";
import type { EncodedHeaders } from "./headers.ts";
import type { FoundNats } from "./server/index.ts";
import type { MeshLog } from "./types.ts";

export type ConnectionSettings = {
  readonly clientName: string;
  readonly inbox: string;
  readonly access: NatsAccess;
  readonly clock: Clock;
  readonly log: MeshLog;
  /** Random number in [0, 1), for jitter. */
  readonly random: () => number;
  /** How often the connection is tried out, ms; after two pings without an answer it is given up. */
  readonly pingIntervalMs: number;
};

type Outgoing = {
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly reply: string | undefined;
  readonly headers: EncodedHeaders | undefined;
  /** Second part of the payload. */
  readonly rest: Uint8Array | undefined;
};

type Listener = (connected: boolean) => void;
/** Told the subject of a message that the server's permissions refused. */
type RefusalListener = (subject: string, reason: string) => void;

/** Wait between attempts, ms, plus as much jitter. */
const retryWaitMs = 100;
/** Longest time of one attempt to connect, ms. */
const connectTimeoutMs = 2_000;
/** After NATS came back, other participants may take this long to be back as well, ms. */
const settleMs = 1_000;
/** Longest wait for what was published to leave, ms. */
const flushMs = 2_000;
/** max_payload assumed before a server has told its own, bytes. */
const defaultMaxPayloadBytes = 1024 * 1024;
/** Operations that may wait for NATS at once; each holds its payload. */
const maxWaiting = 10_000;

export class MeshConnection {
  readonly settings: ConnectionSettings;
  readonly #findNats: (signal: AbortSignal) => Promise<FoundNats>;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<Listener>();
  readonly #refusalListeners = new Set<RefusalListener>();
  /** Ends of the waits for a connection; an error when there will be none. */
  readonly #waiting = new Set<(error?: MeshError) => void>();
  /** Messages of this turn of the event loop. */
  #outbox: Outgoing[] = [];
  #client: NatsConnection | undefined;
  #found: FoundNats | undefined;
  #connected = false;
  #changedMs: number;
  #bringingBack = false;
  #reconnectedMs = Number.NEGATIVE_INFINITY;
  #maxPayloadBytes = defaultMaxPayloadBytes;
  #clustered = false;
  #lastProblem = "";

  constructor(settings: ConnectionSettings, findNats: (signal: AbortSignal) => Promise<FoundNats>) {
    this.settings = settings;
    this.#changedMs = settings.clock.nowMs();
    this.#findNats = findNats;
  }

  /** Begins to connect; returns at once. */
  start(): void {
    this.#run().catch((error: unknown) => {
      if (!this.closed) this.settings.log("error", `NATS connection ended: ${textOf(error)}`);
    });
  }

  get connected(): boolean {
    return this.#connected;
  }

  get closed(): boolean {
    return this.#stop.signal.aborted;
  }

  /** True right after NATS came back: who does not answer now may still be on the way. */
  get settling(): boolean {
    return this.#connected && this.settings.clock.monotonicMs() - this.#reconnectedMs < settleMs;
  }

  /** How NATS was found, in words; before that, why not yet. */
  describe(): { sinceMs: number; server: string; way: string } {
    const sinceMs = this.#changedMs;
    const server = this.#client?.getServer() ?? this.#found?.urls.join(",") ?? "none";
    return { sinceMs, server, way: this.#found?.detail ?? (this.#lastProblem || "looking for NATS") };
  }

  /** What the server says; while it is away, what it last said. */
  maxPayloadBytes(): number {
    return this.#client?.info?.max_payload ?? this.#maxPayloadBytes;
  }

  /** True when the server that is connected, or was last, belongs to a cluster. Ask only after `ready`. */
  clustered(): boolean {
    return this.#clustered;
  }

  /** Called after every change, also with `false` at the close. A throw is logged. Returns the way to stop it. */
  onChange(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onRefusal(listener: RefusalListener): void {
    this.#refusalListeners.add(listener);
  }

  /** Resolves once connected; rejects with MeshError `cancelled` or `closed`. */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#wait(Number.POSITIVE_INFINITY, signal);
  }

  /** The client, once connected: it reconnects by itself. Rejects as `ready` does. */
  async client(signal?: AbortSignal): Promise<NatsConnection> {
    await this.ready(signal);
    return this.#client!;
  }

  /** Waits at most `timeoutMs` for a connection; MeshError `disconnected` after that. */
  readyWithin(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (!this.#connected && this.#waiting.size >= maxWaiting) {
      return Promise.reject(new MeshError("disconnected", `${maxWaiting} operations already wait for NATS`));
    }
    return this.#wait(timeoutMs, signal);
  }

  /**
   * Sends with all else that this turn of the event loop sends: one write for the requests of many clients costs a
   * third less CPU than one each (docs/decisions/0014). Throws `disconnected` when NATS is away (the client would lose
   * the message silently), `too-large` above max_payload. `rest` follows `payload` in the same message; it must not
   * change any more, and goes without headers.
   */
  publish(
    subject: string,
    payload: Uint8Array,
    reply?: string,
    headers?: EncodedHeaders,
    rest?: Uint8Array,
  ): void {
    if (!this.#connected) throw this.closed ? closed() : this.#away();
    this.checkSize(payload.length + (headers?.encode().length ?? 0) + (rest?.length ?? 0));
    if (this.#outbox.length === 0) setImmediate(() => this.#sendOutbox());
    this.#outbox.push({ subject, payload, reply, headers, rest });
  }

  /** Throws `too-large` for a message that the server would refuse; `bytes` with headers. */
  checkSize(bytes: number): void {
    const limit = this.maxPayloadBytes();
    if (bytes <= limit) return;
    const fix = "raise max_payload in the server's configuration or send less";
    const what = `a message of ${bytes} bytes with its headers`;
    throw new MeshError("too-large", `${what} is above NATS' max_payload of ${limit}; ${fix}`);
  }

  /**
   * Subscribes now and after every reconnect. The one place that guards callbacks: a throw inside one would kill the
   * client's reader. Call only after `ready`.
   */
  subscribe(subject: string, onMessage: (message: Msg) => void, queue?: string): Subscription {
    const client = this.#client;
    if (client === undefined || client.isClosed()) throw this.closed ? closed() : this.#away();
    const callback = (error: Error | null, message: Msg): void => {
      try {
        if (error === null) onMessage(message);
        else
          this.settings.log(
            "error",
            `subscription ${subject}: ${error.message}; it stays off until a restart`,
          );
      } catch (thrown) {
        this.settings.log("error", `handler of ${subject} threw: ${textOf(thrown)}`);
      }
    };
    return client.subscribe(subject, queue === undefined ? { callback } : { callback, queue });
  }

  /** Resolves when the server has taken everything published before: true; or the connection broke or hangs: false. */
  async flush(): Promise<boolean> {
    const client = this.#client;
    if (client === undefined || !this.#connected) return false;
    this.#sendOutbox();
    return new Promise((resolve) => {
      // A ping that is under way when the client closes is never settled.
      const timer = this.settings.clock.setTimeout(() => resolve(false), flushMs);
      const finish = (done: boolean): void => {
        timer.cancel();
        resolve(done);
      };
      client.flush().then(
        () => finish(true),
        () => finish(false),
      );
    });
  }

  /** Sends what is left and closes. Everything that waits is rejected with `closed`. */
  async close(): Promise<void> {
    if (this.closed) return;
    const flushed = this.flush();
    this.#stop.abort(closed());
    await flushed;
    this.#setConnected(false);
    for (const end of [...this.#waiting]) end(closed());
    await this.#client?.close();
  }

  /** What cannot be sent because NATS went away meanwhile is lost like anything under way; its waiters are told so. */
  #sendOutbox(): void {
    const outbox = this.#outbox;
    this.#outbox = [];
    if (!this.#connected) return;
    const client = this.#client!;
    for (const { subject, payload, reply, headers, rest } of outbox) {
      try {
        if (rest !== undefined) publishUncopied(client, subject, reply, payload, rest);
        else client.publish(subject, payload, { reply, headers } as unknown as PublishOptions);
      } catch (error) {
        this.settings.log("error", `message to ${subject} was not sent: ${textOf(error)}`);
      }
    }
  }

  #wait(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.closed) return Promise.reject(closed());
    if (signal?.aborted) return Promise.reject(cancelledBy(signal));
    if (this.#connected) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const end = (error?: MeshError): void => {
        this.#waiting.delete(end);
        timer?.cancel();
        signal?.removeEventListener("abort", onAbort);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = (): void => end(cancelledBy(signal!));
      const timer =
        timeoutMs === Number.POSITIVE_INFINITY
          ? undefined
          : this.settings.clock.setTimeout(() => end(this.#away()), timeoutMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(end);
    });
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const client = await this.#firstConnect(signal);
    this.#client = client;
    if (signal.aborted) return client.close();
    const changes = client.status();
    this.#setConnected(true);
    for await (const status of changes) {
      if (signal.aborted) return;
      this.#onStatus(status, client);
    }
    this.#setConnected(false);
    throw new Error("the client gave up; restart this process");
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

  #onStatus(status: Status, client: NatsConnection): void {
    if (status.type === "disconnect") {
      this.#setConnected(false);
      this.#problem(`lost ${status.server}`);
      void this.#bringBack(client);
    } else if (status.type === "reconnect") {
      this.settings.log("info", `NATS is back: ${status.server}`);
      this.#lastProblem = "";
      this.#reconnectedMs = this.settings.clock.monotonicMs();
      this.#setConnected(true);
    } else if (status.type === "staleConnection") {
      destroySocket(client);
    } else if (status.type === "error") {
      this.settings.log("warn", `NATS says: ${status.error.message}`);
      const { error } = status;
      if (!(error instanceof errors.PermissionViolationError) || error.operation !== "publish") return;
      for (const listener of this.#refusalListeners) listener(error.subject, error.message);
    }
  }

  /** The client reconnects by itself; a shared server of ours must be started again by someone, whoever is first. */
  async #bringBack(client: NatsConnection): Promise<void> {
    if (this.#bringingBack) return;
    this.#bringingBack = true;
    const { signal } = this.#stop;
    while (!this.#connected && !signal.aborted) {
      try {
        const ensured = await this.#found!.ensure(signal);
        if (ensured.restarted || ensured.moved) client.setServers(ensured.urls);
      } catch (error) {
        if (!signal.aborted) this.#problem(textOf(error));
      }
      await this.settings.clock.sleep(retryWaitMs * (2 + this.settings.random()), signal).catch(() => {});
    }
    this.#bringingBack = false;
  }

  #setConnected(connected: boolean): void {
    if (this.#connected === connected) return;
    this.#connected = connected;
    this.#changedMs = this.settings.clock.nowMs();
    if (connected) {
      // The client forgets these with the connection.
      this.#maxPayloadBytes = this.maxPayloadBytes();
      this.#clustered = this.#client?.info?.cluster !== undefined;
    }
    for (const listener of [...this.#listeners]) {
      try {
        listener(connected);
      } catch (error) {
        this.settings.log("error", `a listener for the connection threw: ${textOf(error)}`);
      }
    }
    if (connected) for (const end of [...this.#waiting]) end();
  }

  /** Addresses are not for clients: they are in the log, and in the cause. */
  #away(): MeshError {
    const cause = new Error(this.#lastProblem || "not connected yet");
    return new MeshError("disconnected", "NATS is away", { cause });
  }

  #problem(text: string): void {
    if (text === this.#lastProblem) return;
    this.#lastProblem = text;
    this.settings.log("warn", `NATS is away: ${text}; trying again until it is there`);
  }

  #clientOptions(servers: string[]): ConnectionOptions {
    const { access, clientName, inbox, pingIntervalMs } = this.settings;
    return {
      servers,
      name: clientName,
      inboxPrefix: inbox,
      maxReconnectAttempts: -1,
      reconnectTimeWait: retryWaitMs,
      reconnectJitter: retryWaitMs,
      pingInterval: pingIntervalMs,
      maxPingOut: 2,
      timeout: connectTimeoutMs,
      noAsyncTraces: true,
      ignoreAuthErrorAbort: true,
      ...accessOptions(access),
    };
  }
}

function closed(): MeshError {
  return new MeshError("closed", "the mesh is closed");
}
