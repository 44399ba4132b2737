/** An HTTP/1.1 message whose body is there. */
import type { Writable } from "node:stream";

/** A body up to this leaves in one buffer with its head, bytes: a copy is cheaper than a second piece. */
const joinedBytes = 64 * 1024;

/** `head`: latin1, with its empty line. */
export function writeWhole(socket: Writable, head: string, body: Uint8Array): void {
  if (body.length > joinedBytes) {
    socket.cork();
    socket.write(head, "latin1");
    socket.write(body);
    socket.uncork();
    return;
  }
  const joined = Buffer.allocUnsafe(head.length + body.length);
  joined.write(head, 0, "latin1");
  joined.set(body, head.length);
  socket.write(joined);
}
