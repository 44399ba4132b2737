/** A delivered message as its handlers see it; what costs time is read when it is asked for. */
import type { Msg } from "@nats-io/transport-node";
import { headerPairs, headerText, headerValue } from "./headers.ts";
import { readAckSubject } from "./pull.ts";
import { parseTopic } from "./subjects.ts";
import type { TopicMessage } from "./types.ts";

/** `base`: of the component's events without a key. */
export function readTopicMessage(base: string, message: Msg): TopicMessage {
  let text: string | undefined;
  const headers = (): string => (text ??= headerText(message));
  return {
    topic: parseTopic(base, message.subject),
    data: message.data,
    ...readAckSubject(message.reply ?? ""),
    header: (name) => headerValue(headers(), name) || undefined,
    headers: () => {
      const joined = new Map<string, string>();
      for (const [name, value] of headerPairs(headers())) {
        const before = joined.get(name);
        joined.set(name, before === undefined ? value : `${before},${value}`);
      }
      return [...joined];
    },
  };
}
