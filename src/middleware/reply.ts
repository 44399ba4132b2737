/** Answers that middlewares give themselves, and their way to the body of another's. */
import { collectBody } from "../../mesh/index.ts";
import type { MiddlewareReply } from "./port.ts";

/** Plain text, as all refusals of middlewares. */
export function textReply(status: number, text: string, headers: readonly string[] = []): MiddlewareReply {
  return {
    status,
    headers: ["Content-Type", "text/plain; charset=utf-8", ...headers],
    body: Buffer.from(text),
  };
}

/** The answer to a request whose middleware failed; the log says why. */
export function brokenReply(): MiddlewareReply {
  return textReply(500, "Internal Server Error");
}

/** The body of an answer, whole in memory; empty for one that begins a tunnel. Rejects above `maxBytes`. */
export function wholeBody(reply: MiddlewareReply, maxBytes: number): Promise<Uint8Array> {
  return isTunnel(reply) ? Promise.resolve(new Uint8Array(0)) : collectBody(reply.body, maxBytes);
}

/** What follows this answer is no body but a connection (WebSocket), which is nobody's to read or change. */
export function isTunnel({ status }: MiddlewareReply): boolean {
  return status === 101;
}
