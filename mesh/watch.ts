/**
 * Watches keys of a table: an ephemeral consumer that is asked for the headers of a few messages at a time, created
 * again where it stopped after NATS was away. Values are read one by one, so that a slow reader holds nothing, and
 * many watches do not overrun the connection. Normative: README.md, "Watching".
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import { type Current, keyOf, readEntry } from "./entry.ts";
import { cancelledBy, textOf } from "./errors.ts";
import { headerText, headerValue, statusOf, statusWords } from "./headers.ts";
import { type AttemptOptions, type JetStream, storageError } from "./jetstream.ts";
import { readAckSubject } from "./pull.ts";
import type { TableChange, TableCursor, TableKey } from "./types.ts";

const nanosPerMs = 1_000_000;
/** How long the server holds one request open, and how often it says then that it is alive, ms. */
const pullExpiresMs = 30_000;
const heartbeatMs = 2_000;
/** The server drops a consumer that nobody asked for so long, ms. */
const inactiveMs = 60_000;
/** What one request may bring. */
const requestMessages = 64;
/** Before the watch begins again because a value could not be read, ms. */
const unreadWaitMs = 500;
/**
 * Deletes leave a mark for an hour, and expired values too. A cursor that is older than this may have missed some; the
 * rest of the hour is for clocks that differ.
 */
const completeMs = 45 * 60_000;
const firstWaitMs = 50;
const maxWaitMs = 5_000;

export type WatchTarget = {
  readonly js: JetStream;
  readonly stream: string;
  /** `$KV.<bucket>.` */
  readonly prefix: string;
  /** Subjects to follow. */
  readonly filter: string;
  /** True for keys that are wanted; a filter may take more. */
  readonly wants: (key: TableKey) => boolean;
  /** Options of one try to begin. */
  readonly attempt: (signal: AbortSignal) => AttemptOptions;
  /** Makes sure that the stream exists. */
  readonly ensure: (attempt: AttemptOptions) => Promise<unknown>;
  /** State of a key from the leader. */
  readonly read: (encoded: string) => Promise<Current>;
};

type Info = { readonly created: string; readonly state: { readonly last_seq: number } };
type Created = { readonly delivered: { readonly stream_seq: number } };

/** One run over a consumer: what it has brought and not been read, and why it ended. */
class Run {
  readonly arrived: Msg[] = [];
  /** Messages asked for that have not come. */
  asked = 0;
  /** Why this consumer brings nothing more. */
  ended: string | undefined;
  /** The server has told that nothing more is there. */
  idle = false;
  heardMs: number;
  wake: (() => void) | undefined;

  constructor(nowMs: number) {
    this.heardMs = nowMs;
  }

  end(why: string): void {
    this.ended ??= why;
    this.wake?.();
  }
}

/** Resolves once the consumer is there: what is written from then on will be told. Rejects with MeshError. */
export async function watchTable(
  target: WatchTarget,
  after: TableCursor | undefined,
  signal: AbortSignal,
): Promise<AsyncIterableIterator<TableChange>> {
  const watch = new Watch(target, after, signal);
  await watch.begin();
  return watch.changes();
}

class Watch {
  readonly #target: WatchTarget;
  readonly #signal: AbortSignal;
  /** All changes up to here have been told. */
  #cursor: TableCursor;
  /** Undefined until the first consumer says where it begins. */
  #after: TableCursor | undefined;
  #reset = false;
  #run: Run | undefined;
  #consumer = "";
  #inbox = "";
  #subscription: Subscription | undefined;

  constructor(target: WatchTarget, after: TableCursor | undefined, signal: AbortSignal) {
    this.#target = target;
    this.#signal = signal;
    this.#after = after;
    this.#cursor = after ?? { revision: 0, timeMs: 0 };
  }

  async begin(): Promise<void> {
    await this.#open();
  }

  /** Ends when the signal does. The first change is `ready` or `reset`. */
  async *changes(): AsyncIterableIterator<TableChange> {
    const off = this.#target.js.connection.onChange((connected) => {
      if (!connected) this.#run?.end("NATS is away");
    });
    const onAbort = (): void => this.#run?.end("the watch ended");
    this.#signal.addEventListener("abort", onAbort);
    try {
      yield { kind: this.#reset ? "reset" : "ready", cursor: this.#cursor };
      while (!this.#signal.aborted) {
        yield* this.#follow(this.#run!);
        if (this.#signal.aborted) return;
        await this.#reopen();
        if (this.#reset) yield { kind: "reset", cursor: this.#cursor };
      }
    } finally {
      off();
      this.#signal.removeEventListener("abort", onAbort);
      this.#leave();
    }
  }

  async *#follow(run: Run): AsyncIterableIterator<TableChange> {
    const { clock } = this.#target.js.connection.settings;
    for (;;) {
      const message = run.arrived.shift();
      if (message !== undefined) {
        const change = await this.#read(message).catch((error: unknown) => run.end(textOf(error)));
        if (change !== undefined) yield change;
        // At the same cursor.
        else if (run.ended !== undefined) return clock.sleep(unreadWaitMs, this.#signal).catch(() => {});
        continue;
      }
      if (run.ended !== undefined || this.#signal.aborted) return;
      if (run.idle) {
        run.idle = false;
        this.#cursor = { revision: this.#cursor.revision, timeMs: clock.nowMs() };
        yield { kind: "idle", cursor: this.#cursor };
        continue;
      }
      if (run.asked === 0) this.#ask(run);
      await this.#wait(run);
    }
  }

  /** Until something arrives, or the server has been silent for too long. */
  async #wait(run: Run): Promise<void> {
    if (run.arrived.length > 0 || run.idle || run.ended !== undefined) return;
    const { clock } = this.#target.js.connection.settings;
    await new Promise<void>((resolve) => {
      const timer = clock.setTimeout(() => {
        if (clock.monotonicMs() - run.heardMs > 2 * heartbeatMs) run.ended ??= "the server is silent";
        resolve();
      }, 3 * heartbeatMs);
      run.wake = () => {
        timer.cancel();
        resolve();
      };
    });
    run.wake = undefined;
  }

  #ask(run: Run): void {
    const { connection } = this.#target.js;
    run.asked = requestMessages;
    const expires = pullExpiresMs * nanosPerMs;
    const request = { batch: run.asked, expires, idle_heartbeat: heartbeatMs * nanosPerMs };
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${this.#target.stream}.${this.#consumer}`;
    try {
      connection.publish(subject, Buffer.from(JSON.stringify(request)), this.#inbox);
      run.heardMs = connection.settings.clock.monotonicMs();
    } catch (error) {
      run.end(textOf(error));
    }
  }

  #onMessage(run: Run, message: Msg): void {
    run.heardMs = this.#target.js.connection.settings.clock.monotonicMs();
    if (message.reply !== undefined && message.reply !== "") {
      run.asked = Math.max(0, run.asked - 1);
      run.arrived.push(message);
      return run.wake?.();
    }
    const headers = headerText(message);
    const status = statusOf(headers);
    if (status === 100) run.idle = run.arrived.length === 0;
    else if (status === 404 || status === 408) run.asked = 0;
    else return run.end(`${status} ${statusWords(headers)}`);
    run.wake?.();
  }

  /** Undefined for what nobody wants to know. Rejects when a value cannot be read now. */
  async #read(message: Msg): Promise<TableChange | undefined> {
    const { sequence: revision, timestampMs } = readAckSubject(message.reply!);
    const cursor = { revision, timeMs: timestampMs };
    const change = await this.#changeOf(message, cursor);
    this.#cursor = cursor;
    return change;
  }

  async #changeOf(message: Msg, cursor: TableCursor): Promise<TableChange | undefined> {
    const { revision, timeMs } = cursor;
    const { prefix, wants, read } = this.#target;
    const sent = headerText(message);
    const own = sent === "" ? "NATS/1.0\r\n" : sent.replace(/(\r\n)+$/, "\r\n");
    // As a direct read would give it.
    const headers =
      `${own}Nats-Subject: ${message.subject}\r\nNats-Sequence: ${revision}\r\n` +
      `Nats-Time-Stamp: ${new Date(timeMs).toISOString()}\r\n\r\n`;
    const key = keyOf(prefix, headers);
    if (key === undefined || !wants(key)) return undefined;
    const { entry } = readEntry({ headers, data: message.data });
    if (entry !== undefined) {
      if (headerValue(headers, "Nats-Msg-Size") === "0") return { kind: "put", key, entry, cursor };
      const now = await read(message.subject.slice(prefix.length));
      // Otherwise it was replaced, which will be told.
      return now.entry?.revision === revision ? { kind: "put", key, entry: now.entry, cursor } : undefined;
    }
    const expired = headerValue(headers, "Nats-Marker-Reason") === "MaxAge";
    return { kind: expired ? "expire" : "delete", key, cursor };
  }

  /** Never gives up but for the signal and the end of the connection. */
  async #reopen(): Promise<void> {
    const { connection } = this.#target.js;
    const { clock, log, random } = connection.settings;
    log("debug", `watch of ${this.#target.filter}: ${this.#run?.ended}; beginning again`);
    this.#leave();
    this.#after = this.#cursor;
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, maxWaitMs)) {
      try {
        await connection.ready(this.#signal);
        return await this.#open();
      } catch (error) {
        if (this.#signal.aborted) return;
        if (connection.closed) throw error;
        log("debug", `watch of ${this.#target.filter}: ${textOf(error)}; trying again`);
        await clock.sleep(waitMs * (0.5 + random()), this.#signal).catch(() => {});
      }
    }
  }

  async #open(): Promise<void> {
    const { js, stream, filter, ensure } = this.#target;
    const { clock, inbox } = js.connection.settings;
    if (this.#signal.aborted) throw cancelledBy(this.#signal);
    const attempt = this.#target.attempt(this.#signal);
    await ensure(attempt);
    const name = `weft-watch-${inbox.slice(inbox.indexOf(".") + 1)}-${js.nextId()}`;
    const after = this.#after === undefined ? undefined : await this.#complete(this.#after, attempt);
    this.#reset = after === undefined && this.#after !== undefined;
    const start =
      after === undefined
        ? { deliver_policy: "new" }
        : { deliver_policy: "by_start_sequence", opt_start_seq: after.revision + 1 };
    const config = {
      ...start,
      name,
      filter_subject: filter,
      ack_policy: "none",
      headers_only: true,
      replay_policy: "instant",
      inactive_threshold: inactiveMs * nanosPerMs,
      mem_storage: true,
      num_replicas: 1,
    };
    const request = { stream_name: stream, config };
    const created = await js
      .api<Created>(`CONSUMER.CREATE.${stream}.${name}.${filter}`, request, attempt)
      .catch((error: unknown) => Promise.reject(storageError(error, "watch: ")));
    this.#cursor = after ?? { revision: created.delivered.stream_seq, timeMs: clock.nowMs() };
    const run = new Run(clock.monotonicMs());
    this.#run = run;
    this.#consumer = name;
    this.#inbox = `${inbox}.watch.${name}`;
    this.#subscription = js.connection.subscribe(this.#inbox, (message) => this.#onMessage(run, message));
    this.#ask(run);
  }

  /** The cursor, unless something behind it can have gone: it is old, or of another stream of this name. */
  async #complete(after: TableCursor, attempt: AttemptOptions): Promise<TableCursor | undefined> {
    const { js, stream } = this.#target;
    const { created, state } = await js
      .api<Info>(`STREAM.INFO.${stream}`, undefined, attempt)
      .catch((error: unknown) => Promise.reject(storageError(error, "watch: ")));
    const isYoung = js.connection.settings.clock.nowMs() - after.timeMs <= completeMs;
    const isOwn = state.last_seq >= after.revision && Date.parse(created) <= after.timeMs;
    return isYoung && isOwn ? after : undefined;
  }

  /** Asks the server to forget the consumer; it would by itself, later. */
  #leave(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
    const { connection } = this.#target.js;
    if (this.#consumer === "" || !connection.connected) return;
    try {
      connection.publish(
        `$JS.API.CONSUMER.DELETE.${this.#target.stream}.${this.#consumer}`,
        Buffer.alloc(0),
        // The answer goes nowhere.
        `${this.#inbox}.left`,
      );
    } catch {
      // It ends by itself.
    }
    this.#consumer = "";
  }
}
