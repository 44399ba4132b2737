/**
 * App health checks: probes the app all the time and tells when it falls ill and when it is well again.
 * An app counts as ill until its first good answer. Failures count only in a row, as Dapr's documents say (its code
 * forgets none).
 */
import type { Clock } from "../../mesh/index.ts";
import { GrpcCode, grpcStatusText } from "../api/errors.ts";
import type { AppHealthOptions } from "../config/options.ts";
import type { Log } from "../telemetry/log.ts";

/** Asks the app once. Resolves with true when it is well; a rejection counts as false. */
export type Probe = (signal: AbortSignal) => Promise<boolean>;

export class AppHealth {
  readonly #options: AppHealthOptions;
  readonly #probe: Probe;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #listeners = new Set<(healthy: boolean) => void>();
  readonly #first = Promise.withResolvers<boolean>();
  #healthy = false;
  #failures = 0;

  constructor(options: AppHealthOptions, probe: Probe, clock: Clock, log: Log) {
    this.#options = options;
    this.#probe = probe;
    this.#clock = clock;
    this.#log = log;
  }

  get healthy(): boolean {
    return this.#healthy;
  }

  /** Resolves after the first probe: was it good? Never, when there is none. */
  get firstProbe(): Promise<boolean> {
    return this.#first.promise;
  }

  /** Called at every change. Returns the way to stop it. */
  onChange(listener: (healthy: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Resolves when the app is ill, now or when it falls ill. */
  whenIll(): Promise<void> {
    if (!this.#healthy) return Promise.resolve();
    return new Promise((resolve) => {
      const stop = this.onChange((healthy) => {
        if (healthy) return;
        stop();
        resolve();
      });
    });
  }

  /** Probes now and then at every interval. Resolves when the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const startMs = this.#clock.monotonicMs();
      const well = await this.#ask(signal);
      if (signal.aborted) return;
      this.report(well);
      this.#first.resolve(well);
      const restMs = this.#options.intervalMs - (this.#clock.monotonicMs() - startMs);
      await this.#clock.sleep(Math.max(0, restMs), signal).catch(() => {});
    }
  }

  /** Takes the outcome of one probe. */
  report(well: boolean): void {
    this.#failures = well ? 0 : this.#failures + 1;
    if (well === this.#healthy) return;
    if (!well && this.#failures < this.#options.threshold) return;
    this.#healthy = well;
    this.#failures = 0;
    if (well) this.#log.info("App entered healthy status");
    else
      this.#log.warn(
        `App entered un-healthy status: ${this.#options.threshold} health probes in a row failed`,
      );
    for (const listener of this.#listeners) listener(well);
  }

  async #ask(signal: AbortSignal): Promise<boolean> {
    const limit = new AbortController();
    const { timeoutMs } = this.#options;
    const stop = (): void => limit.abort(new Error(`the app did not answer within ${timeoutMs} ms`));
    const timer = this.#clock.setTimeout(stop, timeoutMs);
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await this.#probe(limit.signal);
    } catch (error) {
      this.#log.debug(
        `health probe of the app failed: ${error instanceof Error ? error.message : String(error)}`,
      );
      return false;
    } finally {
      timer.cancel();
      signal.removeEventListener("abort", stop);
    }
  }
}

/** Why calls to an ill app fail, in Dapr's words. */
export function unhealthyApp(): Error {
  return new Error(grpcStatusText(GrpcCode.Internal, "app is not in a healthy state"));
}
