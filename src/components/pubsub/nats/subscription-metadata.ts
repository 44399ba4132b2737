/** What the metadata of a subscription ask of pubsub.nats. Names count in any case. */
import { RequestRefused } from "../../../blocks/pubsub/port.ts";
import { propertyOf } from "../../component.ts";

type Metadata = Readonly<Record<string, string>>;

export type SubscriptionWishes = {
  /** Undefined = as the component says. */
  readonly ordered: boolean | undefined;
};

/** Throws RequestRefused, naming the field. */
export function readSubscriptionWishes(metadata: Metadata): SubscriptionWishes {
  return { ordered: readBoolean(metadata, "ordered") };
}

const words: ReadonlyMap<string, boolean | undefined> = new Map([
  ["true", true],
  ["1", true],
  ["false", false],
  ["0", false],
  ["", undefined],
]);

function readBoolean(metadata: Metadata, name: string): boolean | undefined {
  const text = propertyOf(metadata, name)?.trim().toLowerCase();
  if (text === undefined) return undefined;
  if (!words.has(text)) throw new RequestRefused(name, `"${text}" is neither true nor false`);
  return words.get(text);
}
