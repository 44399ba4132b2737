/**
 * What the process is told from outside: signals, and calls of the shutdown API. Orders wait in a short line until
 * whoever runs the sidecar takes them.
 */

export type Order =
  /** End gracefully. A signal may be held back by --dapr-block-shutdown-duration, the API may not. */
  | { readonly kind: "end"; readonly by: "signal" | "api"; readonly text: string }
  /** End at once, but let the answer of the API leave. */
  | { readonly kind: "force"; readonly text: string }
  /** A second signal: end now. */
  | { readonly kind: "exit"; readonly text: string }
  /** SIGHUP: read everything again. */
  | { readonly kind: "reload"; readonly text: string };

export class Orders {
  readonly #waiting: Order[] = [];
  readonly #takers = new Set<() => void>();
  readonly #listeners: readonly (readonly [NodeJS.Signals, () => void])[];
  #signals = 0;

  /** Listens for signals until `close`. */
  constructor() {
    const end = (signal: NodeJS.Signals) => (): void => {
      const again = ++this.#signals > 1;
      const text = `Received signal ${signal}${again ? " again" : ""}`;
      this.give(again ? { kind: "exit", text } : { kind: "end", by: "signal", text });
    };
    this.#listeners = [
      ["SIGINT", end("SIGINT")],
      ["SIGTERM", end("SIGTERM")],
      ["SIGHUP", () => this.give({ kind: "reload", text: "Received signal SIGHUP" })],
    ];
    for (const [signal, listener] of this.#listeners) process.on(signal, listener);
  }

  /** Puts an order in line; a second one of a kind that still waits changes nothing. */
  give(order: Order): void {
    if (this.#waiting.some(({ kind }) => kind === order.kind)) return;
    this.#waiting.push(order);
    for (const taker of this.#takers) taker();
  }

  /** Takes the first order of these kinds out of the line, now or when it comes. Rejects when the signal is aborted. */
  take(kinds: readonly Order["kind"][], signal: AbortSignal): Promise<Order> {
    return new Promise((resolve, reject) => {
      const attempt = (): void => {
        const place = this.#waiting.findIndex(({ kind }) => kinds.includes(kind));
        if (place < 0 || signal.aborted) return;
        this.#takers.delete(attempt);
        resolve(this.#waiting.splice(place, 1)[0]!);
      };
      this.#takers.add(attempt);
      signal.addEventListener("abort", () => {
        this.#takers.delete(attempt);
        reject(signal.reason as Error);
      });
      attempt();
    });
  }

  close(): void {
    for (const [signal, listener] of this.#listeners) process.off(signal, listener);
  }
}
