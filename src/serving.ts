/**
 * What the sidecar does for its app from outside in: calls of the mesh and deliveries of blocks. It begins when the app
 * is up, ends while the app fails its health checks (other replicas get the calls then), and ends for good at the stop.
 */
import type { Clock, Mesh, ServeHandler, Served, Unready } from "../mesh/index.ts";
import type { AppConfig } from "./app/config.ts";
import type { AppHealth } from "./app/health.ts";
import type { Block } from "./blocks/block.ts";
import type { Log } from "./telemetry/log.ts";

/** Deliveries that run when the app falls ill get this long, ms. */
const illGraceMs = 5_000;
/** An app that does not say what it wants delivered keeps its sidecar from being ready no longer than this, ms. */
const beginLimitMs = 5_000;

export type ServingInit = {
  readonly mesh: Pick<Mesh, "serve" | "announce">;
  readonly receive: ServeHandler;
  readonly blocks: readonly Pick<Block, "appConfigured" | "appReady" | "appUnready" | "stop">[];
  readonly clock: Clock;
  readonly log: Log;
  /** Asks the app about itself; called once. */
  readonly askForConfig: () => Promise<AppConfig>;
  /** Where the app is expected: `http://127.0.0.1:3000`. */
  readonly appAt: string;
  /** Calls of the mesh arrive, and deliveries have begun, or take long to. */
  readonly onServing: () => void;
};

export class Serving {
  readonly #init: ServingInit;
  /** The one that takes calls is last; those before it end calls that they took. */
  readonly #served = new Set<Served>();
  #current: Served | undefined;
  #configured = false;
  #wanted = false;
  #active = false;
  /** No delivery begins again: the sidecar is about to stop. */
  #held = false;
  #stopped = false;
  #turn: Promise<void> | undefined;

  constructor(init: ServingInit) {
    this.#init = init;
  }

  /** Serve or not from now on. Resolves when it is so; a later call may overtake. */
  set(wanted: boolean): Promise<void> {
    this.#wanted = wanted;
    this.#turn ??= this.#follow().finally(() => (this.#turn = undefined));
    return this.#turn;
  }

  /** Serves whenever the app is well. Resolves when the signal is aborted, rejects when serving fails. */
  async follow(health: AppHealth, signal: AbortSignal): Promise<void> {
    const failure = Promise.withResolvers<never>();
    health.onChange((healthy) => void this.set(healthy).catch(failure.reject));
    await Promise.race([health.run(signal), failure.promise]);
  }

  /** Tells callers why this instance takes no calls for now; in the background, since nothing depends on it. */
  tellUnready(state: Unready["state"]): void {
    const { mesh, appAt, log } = this.#init;
    const failed = (error: unknown): void => log.debug(`presence not written: ${String(error)}`);
    void mesh.announce({ state, at: appAt }).catch(failed);
  }

  /** Ends deliveries for good; calls of the mesh go on. */
  async hold(graceMs: number): Promise<void> {
    this.#held = true;
    await this.#endDeliveries(graceMs, "ending");
  }

  /** Ends everything within `graceMs`. Never rejects: what fails to end must not keep the rest from it. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    this.#wanted = false;
    const { blocks, clock } = this.#init;
    const limit = Promise.withResolvers<void>();
    const timer = clock.setTimeout(limit.resolve, graceMs);
    const drained = [...this.#served].map((served) => {
      const drain = served.drain(graceMs);
      // Withdrawn before, it was given no time limit, and a second `drain` does not change that.
      return served === this.#current ? drain : Promise.race([drain, limit.promise]);
    });
    const stopped = blocks.map(async (block) => block.stop?.(graceMs));
    for (const ended of await Promise.allSettled([...drained, ...stopped])) {
      if (ended.status === "rejected") this.#init.log.error(`at the stop: ${String(ended.reason)}`);
    }
    timer.cancel();
  }

  async #follow(): Promise<void> {
    while (this.#wanted !== this.#active && !this.#stopped) {
      this.#active = this.#wanted;
      if (this.#active) await this.#begin();
      else await this.#end();
    }
  }

  async #begin(): Promise<void> {
    const { mesh, receive, clock, onServing } = this.#init;
    const served = await mesh.serve(receive);
    if (this.#stopped) return served.drain(0);
    this.#served.add(served);
    this.#current = served;
    await mesh.announce();
    // Who waits for the sidecar to be ready publishes next, and in-memory topics keep nothing for later subscribers.
    const late = Promise.withResolvers<void>();
    const timer = clock.setTimeout(late.resolve, beginLimitMs);
    const begun = this.#beginDeliveries().finally(() => timer.cancel());
    await Promise.race([begun, late.promise]);
    onServing();
    await begun;
  }

  async #beginDeliveries(): Promise<void> {
    if (this.#held) return;
    await this.#configure();
    if (this.#held || this.#stopped) return;
    await Promise.all(this.#init.blocks.map(async (block) => block.appReady?.()));
  }

  /** The app is asked about itself once, also when it falls ill and comes back. */
  async #configure(): Promise<void> {
    if (this.#configured) return;
    const config = await this.#init.askForConfig();
    this.#configured = true;
    for (const block of this.#init.blocks) block.appConfigured?.(config);
  }

  async #end(): Promise<void> {
    const served = this.#current;
    this.#current = undefined;
    // Calls that the app has begun may take as long as they want.
    void served?.drain(Number.POSITIVE_INFINITY).then(() => this.#served.delete(served));
    this.tellUnready("ill");
    await this.#endDeliveries(illGraceMs, "ill");
    this.#init.log.info(
      "the app is withdrawn: it gets no calls of other apps and no deliveries until it is well",
    );
  }

  async #endDeliveries(graceMs: number, why: "ill" | "ending"): Promise<void> {
    await Promise.all(this.#init.blocks.map(async (block) => block.appUnready?.(graceMs, why)));
  }
}
