/** A dead letter of pubsub.nats: what its headers tell, and what it was before (mesh/README.md, "Topics"). */
import type { StoredEvent } from "../../mesh/index.ts";
import { decodeText } from "../lib/header-text.ts";

export type DeadLetter = {
  readonly sequence: number;
  /** RFC 3339. */
  readonly time: string;
  /** Of the CloudEvent. */
  readonly id?: string | undefined;
  /** Where it came from. The rest is absent when no sidecar put it here. */
  readonly topic?: string | undefined;
  readonly group?: string | undefined;
  readonly subscription?: string | undefined;
  readonly tries?: number | undefined;
  readonly originalSequence?: number | undefined;
  readonly reason?: string | undefined;
};

export function readDeadLetter({ sequence, time, headers, data }: StoredEvent): DeadLetter {
  const text = (name: string): string | undefined => {
    const value = headers.find(([key]) => key === `Weft-Dead-${name}`)?.[1];
    return value === undefined ? undefined : decodeText(value);
  };
  const number = (name: string): number | undefined => {
    const value = text(name);
    return value === undefined ? undefined : Number(value);
  };
  return {
    sequence,
    time: time.replace(/(\.\d{3})\d*Z$/, "$1Z"),
    id: idOf(data),
    topic: text("Topic"),
    group: text("Group"),
    subscription: text("Subscription"),
    tries: number("Tries"),
    originalSequence: number("Sequence"),
    reason: text("Reason"),
  };
}

/** Headers and key of the event as it was before it died. */
export function returned({ headers }: StoredEvent): { headers: string[]; key: string | undefined } {
  const kept = headers.filter(([name]) => !name.startsWith("Weft-Dead-") && name !== "Weft-Only-For");
  const meta = (name: string): string | undefined =>
    kept.find(([key]) => key.toLowerCase() === `weft-meta-${name}`)?.[1];
  const key = decodeText(meta("orderingkey") ?? meta("partitionkey") ?? "");
  return { headers: kept.flat(), key: key === "" ? undefined : key };
}

function idOf(data: Uint8Array): string | undefined {
  try {
    const { id } = JSON.parse(Buffer.from(data).toString("utf8")) as { readonly id?: unknown };
    return typeof id === "string" ? id : undefined;
  } catch {
    return undefined;
  }
}
