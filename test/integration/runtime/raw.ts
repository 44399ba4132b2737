/** Bytes to and from a port, for what no HTTP client would send. */
import { connect } from "node:net";

/** Sends text (latin1) and resolves with everything that came once the peer ends, or once `until` matches. */
export function exchange(port: number, text: string, until?: RegExp, host = "127.0.0.1"): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host);
    let seen = "";
    const done = (): void => {
      socket.destroy();
      resolve(seen);
    };
    socket.on("data", (chunk: Buffer) => {
      seen += chunk.toString("latin1");
      if (until?.test(seen) === true) done();
    });
    socket.once("end", done);
    socket.once("error", reject);
    socket.write(text, "latin1");
  });
}
