/**
 * A TCP proxy that loses or holds what passes in one direction. Stands between a sidecar, or a participant of the mesh,
 * and NATS.
 */
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { freePort } from "./ports.ts";

export type DeafProxy = AsyncDisposable & {
  readonly url: string;
  /** What the server says is lost, while all that the client says still arrives. */
  deafen(): void;
  /** What the client says is lost, while all that the server says still arrives. */
  mute(): void;
  /** Everything that was lost since the last `mute`. */
  unheard(): string;
  /** What the client says from the first text like this on waits; `begun` when that text came. */
  hold(text: string): { readonly begun: Promise<void>; release(): void };
  /** Nothing more is lost; connections stay. */
  hear(): void;
  /** Nothing more is lost; all connections end. */
  heal(): void;
};

/** A proxy that can lose what passes in one direction, such as the answer to a request that arrived. */
export async function deafProxy(targetPort: number): Promise<DeafProxy> {
  const port = await freePort();
  const sockets = new Set<Socket>();
  let deaf = false;
  let mute = false;
  let unheard = "";
  let held: { readonly text: string; readonly begin: () => void; readonly late: (() => void)[] } | undefined;
  const server = createServer({ noDelay: true }, (client) => {
    const target = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    for (const socket of [client, target]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        target.destroy();
      });
    }
    client.on("data", (chunk) => {
      if (mute) return void (unheard += chunk.toString("latin1"));
      const isLate = held !== undefined && (held.late.length > 0 || chunk.includes(held.text));
      if (!isLate) return void target.write(chunk);
      held!.late.push(() => target.write(chunk));
      held!.begin();
    });
    target.on("data", (chunk) => deaf || client.write(chunk));
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const hear = (): void => {
    deaf = false;
    mute = false;
  };
  const heal = (): void => {
    hear();
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: `nats://127.0.0.1:${port}`,
    deafen() {
      deaf = true;
    },
    mute() {
      mute = true;
      unheard = "";
    },
    unheard: () => unheard,
    hold(text) {
      const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
      held = { text, begin, late: [] };
      return {
        begun,
        release() {
          for (const write of held?.late ?? []) write();
          held = undefined;
        },
      };
    },
    hear,
    heal,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      heal();
      await closed;
    },
  };
}
