/**
 * Tells the app at the times of a schedule. Every instance of an app has its own clockwork; runs may overlap, and what
 * the app answers changes nothing. Times missed while the app was away are not made up for.
 */
import type { Clock, Timer } from "../../../mesh/index.ts";
import type { Binding, BindingHandler, BindingReading } from "../../blocks/bindings/port.ts";
import { parseSchedule, type Schedule } from "../../lib/cron.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "bindings.cron";
export const versions = ["v1"];
export const capabilities = ["INPUT_BINDING"];
export const metadataSchema = {
  schedule: {
    kind: "string",
    required: true,
    description: "When: five cron fields, six with seconds first, @daily and the like, or @every 1h30m",
  },
} as const satisfies MetadataSchema;

/** Runs of one schedule at once; further times are skipped and logged. */
const maxRunning = 100;
/** Timers cannot be longer than this, ms; farther times are approached in steps. */
const longestTimerMs = 2 ** 31 - 1;

export function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const schedule = parseSchedule(context.metadata.schedule);
  return Promise.resolve({
    operations: [],
    read: (handler) => Promise.resolve(new Clockwork(schedule, handler, context)),
    close: () => Promise.resolve(),
  });
}

class Clockwork implements BindingReading {
  readonly #schedule: Schedule;
  readonly #handler: BindingHandler;
  readonly #clock: Clock;
  readonly #log: ComponentContext["log"];
  readonly #running = new Set<Promise<void>>();
  readonly #stopped = new AbortController();
  #timer: Timer | undefined;

  constructor(schedule: Schedule, handler: BindingHandler, { clock, log }: ComponentContext) {
    this.#schedule = schedule;
    this.#handler = handler;
    this.#clock = clock;
    this.#log = log;
    this.#arm(schedule.next(clock.nowMs()));
  }

  async stop(graceMs: number): Promise<void> {
    this.#timer?.cancel();
    const late = this.#clock.setTimeout(() => {
      this.#stopped.abort(new Error("the app took longer than the grace period"));
    }, graceMs);
    await Promise.all(this.#running);
    this.#stopped.abort(new Error("the binding has stopped"));
    late.cancel();
  }

  #arm(dueMs: number | undefined): void {
    if (dueMs === undefined || this.#stopped.signal.aborted) return;
    const waitMs = Math.max(0, dueMs - this.#clock.nowMs());
    this.#timer = this.#clock.setTimeout(
      () => {
        if (this.#clock.nowMs() < dueMs) return this.#arm(dueMs);
        this.#fire();
        // After a pause of this process the missed times are left out.
        this.#arm(this.#schedule.next(Math.max(dueMs, this.#clock.nowMs() - 1_000)));
      },
      Math.min(waitMs, longestTimerMs),
    );
  }

  #fire(): void {
    if (this.#running.size >= maxRunning) {
      return this.#log.warn(`a time of the schedule is skipped: ${maxRunning} earlier runs are not done`);
    }
    const run = this.#run().finally(() => this.#running.delete(run));
    this.#running.add(run);
  }

  async #run(): Promise<void> {
    const now = new Date(this.#clock.nowMs());
    const metadata = { timeZone: "Local", readTimeUTC: goTime(now) };
    try {
      await this.#handler({ data: new Uint8Array(), metadata }, this.#stopped.signal);
    } catch (error) {
      this.#log.debug(`the app did not take it: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

/** Go's text form of a time in UTC. */
function goTime(time: Date): string {
  const [date, rest] = time.toISOString().split("T") as [string, string];
  return `${date} ${rest.slice(0, -1).replace(/\.?0+$/, "")} +0000 UTC`;
}
