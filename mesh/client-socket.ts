/**
 * What reaches behind the public face of the NATS client (3.4, pinned), to its socket. Where that is not found any
 * more, all falls back to what the client offers.
 */
import type { NatsConnection } from "@nats-io/transport-node";

type Socket = {
  readonly writable: boolean;
  cork(): void;
  uncork(): void;
  write(bytes: Uint8Array | string): boolean;
  destroy(): void;
};
type Inside = {
  readonly protocol?: { flushPending?(): void; readonly transport?: { readonly socket?: Socket } };
};

/**
 * The client closes a stale connection only after all that is unsent has left, which never happens when the peer has
 * stopped reading: it would wait for ever. Without its socket it goes on to reconnect.
 */
export function destroySocket(client: NatsConnection): void {
  (client as Inside).protocol?.transport?.socket?.destroy();
}

/**
 * Publishes a message whose payload is in two pieces. The client would copy them twice into new memory, and that
 * garbage costs more than all else that a large body needs (docs/performance.md).
 */
export function publishUncopied(
  client: NatsConnection,
  subject: string,
  reply: string | undefined,
  head: Uint8Array,
  body: Uint8Array,
): void {
  const { protocol } = client as Inside;
  const socket = protocol?.transport?.socket;
  if (protocol?.flushPending === undefined || typeof socket?.cork !== "function" || !socket.writable) {
    return client.publish(subject, Buffer.concat([head, body]), reply === undefined ? {} : { reply });
  }
  // What was published before this goes out before it.
  protocol.flushPending();
  const to = reply === undefined ? subject : `${subject} ${reply}`;
  socket.cork();
  socket.write(`PUB ${to} ${head.length + body.length}\r\n`);
  socket.write(head);
  socket.write(body);
  socket.write("\r\n");
  socket.uncork();
}
