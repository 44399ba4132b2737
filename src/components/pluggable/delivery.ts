/** Keeps a stream of events open: opened again after each end, and stopped with a wait for what is being handled. */
import { textOf } from "../../lib/thrown.ts";
import type { Plugin } from "./plugin.ts";

/** Wait before a stream is opened again, ms; doubled from the first to the last. */
const firstWaitMs = 100;
const lastWaitMs = 5_000;

export type Delivery = {
  /** Aborted when the events are stopped: the handler's signal. */
  readonly signal: AbortSignal;
  /** Runs the handling of one event; undefined when no new one is taken. */
  handle<T>(work: () => Promise<T>): Promise<T> | undefined;
};

/** `open` runs one stream to its end. */
export function keepDelivering(
  plugin: Plugin,
  what: string,
  open: (delivery: Delivery) => Promise<void>,
): { stop(graceMs: number): Promise<void> } {
  const ended = new AbortController();
  const signal = AbortSignal.any([ended.signal, plugin.closed]);
  const running = new Set<Promise<unknown>>();
  let taking = true;
  const delivery: Delivery = {
    signal,
    handle(work) {
      if (!taking) return undefined;
      const one = work();
      running.add(one);
      const done = (): void => void running.delete(one);
      one.then(done, done);
      return one;
    },
  };
  const loop = async (): Promise<void> => {
    for (let waitMs = firstWaitMs; !signal.aborted; waitMs = Math.min(waitMs * 2, lastWaitMs)) {
      const began = plugin.clock.monotonicMs();
      try {
        await open(delivery);
      } catch (error) {
        if (signal.aborted) return;
        plugin.log.warn(`${what}: the plug-in's stream ended and is opened again: ${textOf(error)}`);
      }
      if (plugin.clock.monotonicMs() - began > lastWaitMs) waitMs = firstWaitMs;
      await pause(plugin, waitMs, signal);
    }
  };
  void loop();
  return {
    async stop(graceMs) {
      taking = false;
      if (running.size > 0) await Promise.race([Promise.allSettled(running), pause(plugin, graceMs, signal)]);
      ended.abort(new Error("the subscription was stopped"));
    },
  };
}

function pause({ clock }: Plugin, waitMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      timer?.cancel();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = Number.isFinite(waitMs) ? clock.setTimeout(end, waitMs) : undefined;
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}
