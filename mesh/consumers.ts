/** The consumers of one stream, by NATS' consumer API, and the few questions about its events that go with them. */
import { MeshError } from "./errors.ts";
import { type AttemptOptions, JsCode, type JetStream } from "./jetstream.ts";

const maxTries = 5;

export type ConsumerConfig = Readonly<Record<string, unknown>>;

export type ConsumerInfo = {
  readonly name: string;
  readonly config: ConsumerConfig & {
    /** ns */
    readonly ack_wait: number;
    readonly filter_subject?: string;
    readonly filter_subjects?: readonly string[];
    readonly metadata?: Readonly<Record<string, string>>;
  };
  readonly ack_floor: { readonly stream_seq: number };
  readonly delivered: { readonly stream_seq: number };
  readonly num_ack_pending: number;
  readonly num_pending: number;
};

export function filtersOf({ config }: ConsumerInfo): readonly string[] {
  return config.filter_subjects ?? [config.filter_subject ?? ""];
}

/** Settings of a consumer that begins with this sequence, or the first one behind it. */
export function fromSequence(sequence: number): ConsumerConfig {
  return { deliver_policy: "by_start_sequence", opt_start_seq: sequence };
}

/** All methods reject with MeshError. */
export class Consumers {
  readonly #js: JetStream;
  readonly #stream: string;

  constructor(js: JetStream, stream: string) {
    this.#js = js;
    this.#stream = stream;
  }

  info(name: string, attempt: AttemptOptions): Promise<ConsumerInfo | undefined> {
    return this.#js.ask(`CONSUMER.INFO.${this.#stream}.${name}`, undefined, attempt, JsCode.consumerNotFound);
  }

  /** Of all consumers of the stream. */
  async names(attempt: AttemptOptions): Promise<Set<string>> {
    const names = new Set<string>();
    type Page = { readonly total: number; readonly consumers: readonly string[] | null };
    for (let offset = 0, total = 1; offset < total;) {
      const page = await this.#js.ask<Page>(`CONSUMER.NAMES.${this.#stream}`, { offset }, attempt);
      if (page?.consumers == null || page.consumers.length === 0) break;
      for (const name of page.consumers) names.add(name);
      offset += page.consumers.length;
      ({ total } = page);
    }
    return names;
  }

  /** All, with their state. */
  async list(attempt: AttemptOptions): Promise<ConsumerInfo[]> {
    const found: ConsumerInfo[] = [];
    type Page = { readonly total: number; readonly consumers: readonly ConsumerInfo[] | null };
    for (let total = 1; found.length < total;) {
      const body = { offset: found.length };
      const page = await this.#js.ask<Page>(`CONSUMER.LIST.${this.#stream}`, body, attempt);
      if (page?.consumers == null || page.consumers.length === 0) break;
      found.push(...page.consumers);
      ({ total } = page);
    }
    return found;
  }

  /** Creates it, or changes what is there. Too late, it sends nothing: the lock of the group may have ended. */
  async write(name: string, config: ConsumerConfig, attempt: AttemptOptions): Promise<ConsumerInfo> {
    if (this.#js.endIn(0) > attempt.endMs)
      throw new MeshError("timeout", "the change of the group took too long");
    const body = { stream_name: this.#stream, config };
    return (await this.#js.ask<ConsumerInfo>(`CONSUMER.CREATE.${this.#stream}.${name}`, body, attempt))!;
  }

  /** Nothing when it is not there. NATS resets only those that began with the oldest event; others are made anew. */
  async move(name: string, sequence: number, attempt: AttemptOptions): Promise<void> {
    const place = `${this.#stream}.${name}`;
    if ((await this.#js.ask(`CONSUMER.RESET.${place}`, { seq: sequence }, attempt, "any")) !== undefined)
      return;
    for (let tries = 1; ; tries++) {
      const found = await this.info(name, attempt);
      if (found === undefined) return;
      await this.#js.ask(`CONSUMER.DELETE.${place}`, undefined, attempt, JsCode.consumerNotFound);
      const { opt_start_time: _, ...kept } = found.config;
      // Its members make it again as well.
      const body = {
        stream_name: this.#stream,
        config: { ...kept, ...fromSequence(sequence) },
        action: "create",
      };
      const absent = tries < maxTries ? "any" : undefined;
      if ((await this.#js.ask(`CONSUMER.CREATE.${place}`, body, attempt, absent)) !== undefined) return;
    }
  }

  /** Sequence of the last event of the stream, also when it is gone already. */
  async lastSequence(attempt: AttemptOptions): Promise<number> {
    type Info = { readonly state: { readonly last_seq: number } };
    return (await this.#js.ask<Info>(`STREAM.INFO.${this.#stream}`, undefined, attempt))!.state.last_seq;
  }

  /** Sequence of the first event of a filter at or behind `seq`. */
  async firstEvent(filter: string, seq: number, attempt: AttemptOptions): Promise<number | undefined> {
    type Found = { readonly message: { readonly seq: number } };
    const request = { next_by_subj: filter, seq };
    const subject = `STREAM.MSG.GET.${this.#stream}`;
    return (await this.#js.ask<Found>(subject, request, attempt, JsCode.messageNotFound))?.message.seq;
  }
}
