/** JetStream's API on a connection of a component: requests, their refusals, and publishing with an answer. */
import type { MsgHdrs, RequestOptions } from "@nats-io/transport-node";
import type { Clock } from "../../../mesh/index.ts";
import { checkSize, type NatsLink, type NatsMessage } from "./nats.ts";

/** What JetStream refused; `code` is like an HTTP status, `errCode` names the reason. */
export class JetStreamRefusal extends Error {
  override readonly name = "JetStreamRefusal";
  readonly code: number;
  readonly errCode: number;

  constructor(code: number, errCode: number, description: string) {
    super(`nats: ${description}`);
    this.code = code;
    this.errCode = errCode;
  }
}

export type JetStream = {
  readonly link: NatsLink;
  /** `CONSUMER.INFO.<stream>.<consumer>` and the like. Rejects with JetStreamRefusal, or when nobody answers. */
  request<T>(what: string, body?: unknown): Promise<T>;
  /**
   * Resolves when a stream has the message. While the connection is away it waits; without an answer in time it
   * rejects, and then nobody knows whether it was stored.
   */
  publish(
    subject: string,
    data: Uint8Array,
    headers: MsgHdrs | undefined,
    signal: AbortSignal,
  ): Promise<PubAck>;
  /** Asks a pull consumer for messages, which come to `inbox`. */
  pull(stream: string, consumer: string, request: unknown, inbox: string): void;
  /** Name of the stream that takes a subject. */
  streamOf(subject: string): Promise<string>;
};

export type PubAck = { readonly stream: string; readonly seq: number; readonly duplicate?: boolean };

type Answer = {
  readonly error?: { readonly code: number; readonly err_code?: number; readonly description?: string };
};

/** Tries of a publish to which no stream listens, as during an election, and the wait between them, ms. */
const publishTries = 3;
const retryMs = 250;

/** `prefix`: `$JS.API`, or that of a domain. `timeoutMs` bounds each request. */
export function openJetStream(link: NatsLink, clock: Clock, prefix: string, timeoutMs: number): JetStream {
  const { client } = link;
  const request = async <T>(what: string, body: unknown = {}): Promise<T> => {
    await link.ready(timeoutMs);
    const message = await client.request(`${prefix}.${what}`, JSON.stringify(body), { timeout: timeoutMs });
    return readAnswer<T>(message.json<Answer>());
  };
  return {
    link,
    request,
    async publish(subject, data, headers, signal) {
      const options: RequestOptions =
        headers === undefined ? { timeout: timeoutMs } : { timeout: timeoutMs, headers };
      for (let tries = 1; ; tries++) {
        await link.ready(timeoutMs, signal);
        signal.throwIfAborted();
        checkSize(link, data);
        try {
          return readStored(subject, await client.request(subject, data, options));
        } catch (error) {
          if (!isNoResponders(error)) throw error;
          if (tries === publishTries) throw new Error("nats: no response from stream", { cause: error });
          await clock.sleep(retryMs, signal);
        }
      }
    },
    pull(stream, consumer, request, inbox) {
      const subject = `${prefix}.CONSUMER.MSG.NEXT.${stream}.${consumer}`;
      client.publish(subject, JSON.stringify(request), { reply: inbox });
    },
    async streamOf(subject) {
      const { streams } = await request<{ streams: string[] | null }>("STREAM.NAMES", { subject });
      const [name] = streams ?? [];
      if (name === undefined)
        throw new Error(`nats: no stream matches subject ${subject}; create one that takes it`);
      return name;
    },
  };
}

/** Nobody subscribes to the subject of a request. */
export function isNoResponders(error: unknown): boolean {
  const { isNoResponders: ask } = error as { isNoResponders?: () => boolean };
  return typeof ask === "function" && ask.call(error);
}

/** Throws Error for an answer that no stream gave: the message is with whoever listens to the subject. */
function readStored(subject: string, message: NatsMessage): PubAck {
  let answer: (Answer & Partial<PubAck>) | undefined;
  try {
    answer = message.json<Answer & Partial<PubAck>>();
  } catch {
    // An answer in another form is none of a stream.
  }
  if (answer?.error === undefined && typeof answer?.stream !== "string")
    throw new Error(`nats: no stream stores ${subject}: another program answers on it`);
  return readAnswer<PubAck>(answer);
}

function readAnswer<T>(answer: Answer): T {
  const { error } = answer;
  if (error === undefined) return answer as T;
  throw new JetStreamRefusal(error.code, error.err_code ?? 0, error.description ?? `error ${error.code}`);
}
