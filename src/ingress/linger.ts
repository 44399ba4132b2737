/**
 * The end of an answer over HTTP/1.1 whose client still sends its body. To close its connection then would reset it,
 * and a client that writes into a reset connection may never read the answer that lies ready for it.
 */
import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "../../mesh/index.ts";
import type { NodeHttpCall } from "./node-call.ts";

/** After the answer the client may go on sending, or leave its half open, this long before it is cut off, ms. */
const lingerMs = 2_000;

/**
 * Lets the rest of the body pass by after the answer, for a while. A connection that node closes with the answer is
 * closed for writing only, until the body has ended or the time is up.
 */
export function linger(call: NodeHttpCall, response: ServerResponse, clock: Clock): void {
  if (!call.bodyOpen) return;
  const { socket } = response;
  // The answer to an earlier request of the connection is still on its way.
  if (socket === null) return void response.once("socket", () => linger(call, response, clock));
  const close = socket.destroySoon;
  let closing = false;
  let limit: Timer | undefined;
  socket.destroySoon = () => {
    closing = true;
    socket.end();
  };
  response.once("finish", () => {
    if (call.bodyOpen) limit = clock.setTimeout(() => socket.destroy(), lingerMs);
    call.discardBody();
  });
  call.onBodyEnd(() => {
    limit?.cancel();
    socket.destroySoon = close;
    if (closing) socket.destroySoon();
  });
}

/** Closes a connection behind its last bytes, also when the client does not close its half. */
export function closeBehind(last: string, socket: Duplex, clock: Clock): void {
  const limit = clock.setTimeout(() => socket.destroy(), lingerMs);
  socket.once("close", () => limit.cancel());
  socket.end(last);
}
