/** Ctrl-C and its siblings as promises: the first asks for an orderly end, a second one for an immediate end. */
import type { Clock } from "../../mesh/index.ts";

export type StopRequest = {
  /** Resolves at the first signal, or when the reader of our output has gone. */
  readonly asked: Promise<void>;
  /** Resolves at the second. */
  readonly insisted: Promise<void>;
  /** Gives the signals back. */
  release(): void;
};

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** A terminal and whoever started us may both deliver the same Ctrl-C, ms. */
const echoMs = 500;

export function listenForStop(clock: Clock, out: NodeJS.WritableStream): StopRequest {
  const asked = Promise.withResolvers<void>();
  const insisted = Promise.withResolvers<void>();
  let firstMs: number | undefined;
  const onSignal = (): void => {
    const nowMs = clock.monotonicMs();
    if (firstMs !== undefined && nowMs - firstMs >= echoMs) insisted.resolve();
    firstMs ??= nowMs;
    asked.resolve();
  };
  for (const signal of signals) process.on(signal, onSignal);
  out.on("error", onSignal);
  return {
    asked: asked.promise,
    insisted: insisted.promise,
    release() {
      for (const signal of signals) process.off(signal, onSignal);
      out.off("error", onSignal);
    },
  };
}
