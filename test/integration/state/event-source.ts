/** Server-sent events of a sidecar as a browser would read them, one by one. */
import { request } from "undici";

export type ServerEvent = { readonly event: string; readonly id: string; readonly data: unknown };

export type EventSource = AsyncDisposable & {
  readonly status: number;
  /** Whole body when the status is not 200. */
  readonly text: string;
  /** The next event that is no heartbeat; undefined when the server has ended the stream. */
  next(): Promise<ServerEvent | undefined>;
};

export async function openEvents(
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<EventSource> {
  const ending = new AbortController();
  const { statusCode, body } = await request(url, {
    headers,
    headersTimeout: 30_000,
    bodyTimeout: 60_000,
    signal: ending.signal,
  });
  const text = statusCode === 200 ? "" : await body.text();
  const pieces = body[Symbol.asyncIterator]();
  let buffer = "";
  return {
    status: statusCode,
    text,
    async next() {
      for (;;) {
        const end = buffer.indexOf("\n\n");
        if (end >= 0) {
          const event = readEvent(buffer.slice(0, end));
          buffer = buffer.slice(end + 2);
          if (event !== undefined) return event;
          continue;
        }
        const piece = await pieces.next();
        if (piece.done === true) return undefined;
        buffer += Buffer.from(piece.value as Uint8Array).toString();
      }
    },
    async [Symbol.asyncDispose]() {
      ending.abort();
      body.on("error", () => {});
      body.destroy();
    },
  };
}

function readEvent(block: string): ServerEvent | undefined {
  const lines = block.split("\n").filter((line) => !line.startsWith(":"));
  const field = (name: string): string | undefined =>
    lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const data = field("data");
  if (data === undefined) return undefined;
  return { event: field("event") ?? "message", id: field("id") ?? "", data: JSON.parse(data) };
}
