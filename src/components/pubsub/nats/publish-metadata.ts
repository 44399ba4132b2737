/** What publish metadata ask of pubsub.nats beyond what is kept with the event. Names count in any case. */
import { RequestRefused } from "../../../blocks/pubsub/port.ts";

type Metadata = Readonly<Record<string, string>>;

export type PublishWishes = {
  /** Events of one key keep their order; undefined = no key. */
  readonly key?: string | undefined;
};

const maxKeyBytes = 256;
const none: PublishWishes = Object.freeze({});

/** Throws RequestRefused, naming the field. */
export function readPublishWishes(metadata: Metadata): PublishWishes {
  let asked: Record<string, string> | undefined;
  for (const name in metadata) {
    const lower = name.toLowerCase();
    if (known.has(lower)) (asked ??= {})[lower] = metadata[name]!;
  }
  return asked === undefined ? none : { key: keyOf(asked) };
}

const known: ReadonlySet<string> = new Set(["orderingkey", "partitionkey"]);

/** `partitionKey` is what Dapr's Kafka component calls it. */
function keyOf(asked: Metadata): string | undefined {
  const name = asked["orderingkey"] ? "orderingKey" : "partitionKey";
  const key = asked["orderingkey"] || asked["partitionkey"];
  if (!key) return undefined;
  const size = Buffer.byteLength(key);
  if (size > maxKeyBytes)
    throw new RequestRefused(name, `it has ${size} bytes; use a key of at most ${maxKeyBytes}`);
  return key;
}
