/**
 * The tracing of a running sidecar: other settings are another tracer with exporters of its own. Spans that are under
 * way end in the exporters they began with, which are closed some time later.
 */
import type { Timer } from "../../../mesh/index.ts";
import type { TracingSettings } from "../../config/kinds/configuration.ts";
import { definitionText } from "../../config/definition.ts";
import type { OpenTracing, TracingParts } from "./open.ts";
import { tracingIsOff } from "./settings.ts";
import type { Tracer, Tracing } from "./tracer.ts";

/** Exporters that were exchanged stay open this long, ms. */
const lateMs = 60_000;
/** Time for the last spans to leave, ms. */
const graceMs = 1_000;
/** Exporters that are left, at most: those of the oldest settings go first. */
const maxLeft = 10;

/** One per sidecar; off until `set`. */
export class RunningTracing implements Tracing {
  readonly #parts: Omit<TracingParts, "settings">;
  #settings = "";
  #now: OpenTracing | undefined;
  readonly #left = new Map<OpenTracing, Timer>();

  constructor(parts: Omit<TracingParts, "settings">) {
    this.#parts = parts;
  }

  get tracer(): Tracer | undefined {
    return this.#now?.tracer;
  }

  /** Nothing of tracing is loaded while it is off. Rejects when it cannot be opened; the old one goes on then. */
  async set(settings: TracingSettings): Promise<void> {
    const text = definitionText(settings);
    if (text === this.#settings) return;
    const before = this.#now;
    this.#now = tracingIsOff(settings) ? undefined : await this.#open(settings);
    this.#settings = text;
    if (before !== undefined) this.#leave(before);
  }

  async close(): Promise<void> {
    const all = [...this.#left.keys(), ...(this.#now === undefined ? [] : [this.#now])];
    await Promise.all(all.map((tracing) => this.#end(tracing)));
  }

  async #open(settings: TracingSettings): Promise<OpenTracing> {
    const { openTracing } = await import("./open.ts");
    return openTracing({ ...this.#parts, settings });
  }

  #leave(tracing: OpenTracing): void {
    const timer = this.#parts.clock.setTimeout(() => void this.#end(tracing), lateMs);
    this.#left.set(tracing, timer);
    for (const oldest of this.#left.keys()) {
      if (this.#left.size <= maxLeft) break;
      void this.#end(oldest);
    }
  }

  async #end(tracing: OpenTracing): Promise<void> {
    this.#left.get(tracing)?.cancel();
    this.#left.delete(tracing);
    await tracing.close(graceMs);
  }
}
