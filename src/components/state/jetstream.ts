/**
 * State in a JetStream key/value bucket that exists already, as Dapr's component keeps it: no ETags, no times to live,
 * no transactions. state.nats has all of these.
 */
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import type {
  StateDelete,
  StateReadOptions,
  StateRecord,
  StateSet,
  StateStore,
} from "../../blocks/state/port.ts";
import { withoutMarkupEscapes } from "../../lib/go-json.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectNats, natsLoginFields, type NatsLink } from "../connect/nats.ts";

export const type = "state.jetstream";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  natsURL: { kind: "string", description: "URL of the server, several by comma.", required: true },
  bucket: { kind: "string", description: "Name of the bucket, which must exist.", required: true },
  name: { kind: "string", description: "Name of the client.", default: "dapr.io - statestore.jetstream" },
  ...natsLoginFields,
} as const satisfies MetadataSchema;

const timeoutMs = 5_000;
/** A line of NATS' protocol has 4,096 bytes by default, bucket and reply included. */
const maxKeyChars = 3_000;
const notFound = 404;
/** Code of JetStream for "no message found". */
const noMessage = 10_037;

/** Rejects when the server cannot be reached or has no such bucket. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { natsURL: url, bucket, name, jwt, seedKey } = context.metadata;
  if (!/^[\w-]+$/.test(bucket))
    throw new Error(`metadata field "bucket": '${bucket}' is no name of a bucket`);
  const link = await connectNats({ ...context, url, name, jwt, seedKey, timeoutMs });
  try {
    const { headers } = await import("@nats-io/transport-node");
    const removal = headers();
    removal.set("KV-Operation", "DEL");
    const store = new JetStreamStore(link, bucket, removal);
    await store.check();
    return store;
  } catch (error) {
    await link.close();
    throw error;
  }
}

type ApiError = { readonly code: number; readonly err_code?: number; readonly description?: string };

class JetStreamStore implements StateStore {
  readonly rules = { ignoresTtl: true, takesAnyOption: "writes" } as const;
  readonly #link: NatsLink;
  readonly #bucket: string;
  /** Header of a message that deletes. */
  readonly #removal: MsgHdrs;

  constructor(link: NatsLink, bucket: string, removal: MsgHdrs) {
    this.#link = link;
    this.#bucket = bucket;
    this.#removal = removal;
  }

  async check(): Promise<void> {
    const answer = await this.#request(`$JS.API.STREAM.INFO.KV_${this.#bucket}`, "");
    if (answer.error?.code === notFound)
      throw new Error(`nats: bucket ${this.#bucket} not found; create it first`);
    if (answer.error !== undefined) throw errorOf(answer.error);
  }

  async get(key: string, { signal }: StateReadOptions): Promise<StateRecord> {
    signal.throwIfAborted();
    const wanted = JSON.stringify({ last_by_subj: this.#subject(key) });
    const { error, message } = await this.#request(`$JS.API.STREAM.MSG.GET.KV_${this.#bucket}`, wanted);
    if (error !== undefined && error.err_code !== noMessage && error.code !== notFound) throw errorOf(error);
    const head = Buffer.from(message?.hdrs ?? "", "base64").toString();
    if (message === undefined || /^KV-Operation: ?(DEL|PURGE)/im.test(head))
      throw new Error("nats: key not found");
    return { value: Buffer.from(message.data ?? "", "base64"), etag: "" };
  }

  async set({ key, value, json }: StateSet, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    await this.#publish(key, json ? withoutMarkupEscapes(bytes) : bytes);
  }

  async delete({ key }: StateDelete, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await this.#publish(key, new Uint8Array(0), this.#removal);
  }

  awaySinceMs(): number | undefined {
    return this.#link.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#link.close();
  }

  async #publish(key: string, value: Uint8Array, headers?: MsgHdrs): Promise<void> {
    const options = headers === undefined ? { timeout: timeoutMs } : { timeout: timeoutMs, headers };
    const answer = readAnswer(await this.#link.client.request(this.#subject(key), value, options));
    if (answer.error !== undefined) throw errorOf(answer.error);
  }

  async #request(subject: string, text: string): Promise<Answer> {
    return readAnswer(await this.#link.client.request(subject, text, { timeout: timeoutMs }));
  }

  #subject(key: string): string {
    const name = key.replaceAll("||", ".");
    if (!/^[-/_=.a-zA-Z0-9]+$/.test(name) || /^\.|\.$|\.\./.test(name)) throw new Error("nats: invalid key");
    // A longer line would make the server end the connection.
    if (name.length > maxKeyChars)
      throw new Error(`nats: invalid key: it is longer than ${maxKeyChars} characters`);
    return `$KV.${this.#bucket}.${name}`;
  }
}

type Answer = {
  readonly error?: ApiError;
  readonly message?: { readonly data?: string; readonly hdrs?: string };
};

function readAnswer(message: Msg): Answer {
  return message.json<Answer>();
}

function errorOf({ description, code }: ApiError): Error {
  return new Error(`nats: ${description ?? `error ${code}`}`);
}
