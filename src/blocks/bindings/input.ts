/**
 * Input: which bindings the app wants, and their life from the app's being ready to its being ill or the sidecar
 * ending. How an event reaches the app stands in http-app.ts and grpc-app.ts.
 */
import { directionOf, propertyOf } from "../../components/component.ts";
import type { ComponentChange, OpenComponent } from "../../components/open.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { anyFailure, callUnder, type Failure } from "../../resiliency/policy.ts";
import type { Log } from "../../telemetry/log.ts";
import { readBinaryHeader } from "../../telemetry/tracing/headers.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import type { BlockHost } from "../block.ts";
import type { Outputs } from "./bindings.ts";
import { openHttpApp, Refused } from "./http-app.ts";
import type { Binding, BindingEvent, BindingReading } from "./port.ts";
import { textOf } from "../../lib/thrown.ts";

/** One protocol's way to ask an app about a binding and to hand it events. */
export type BindingApp = {
  /** Whether the app takes events of this binding. Rejects when it cannot be asked. */
  wants(name: string, route: string, signal: AbortSignal): Promise<boolean>;
  /** Resolves with the app's answer. Rejects when the event was not handled. */
  deliver(
    name: string,
    route: string,
    event: BindingEvent,
    span: Span | undefined,
    signal: AbortSignal,
  ): Promise<Uint8Array>;
};

function judge(error: unknown): Failure {
  if (error instanceof Refused) return error.failure;
  return error instanceof GrpcStatusError ? { kind: "grpc", code: error.code } : anyFailure;
}

export type Inputs = {
  /** Begins, or begins again after `end`. Problems are logged. */
  start(): Promise<void>;
  /** Ends within `graceMs`, also while `start` runs. */
  end(graceMs: number): Promise<void>;
  /** Ends what one component delivers and begins what the other does; nothing while the app is not there. */
  changed(change: ComponentChange, graceMs: number): Promise<void>;
};

export function createInputs(host: BlockHost, outputs: Outputs): Inputs {
  const log = host.log.scope("dapr.runtime.processor");
  const record = createRecord(host);
  let app: Promise<BindingApp> | undefined;
  let current: Run | undefined;

  return {
    async start() {
      if (host.app.protocol === "none") return;
      const run = new Run();
      current = run;
      const components = host.components.all<Binding>("bindings").filter(isInput);
      if (components.length === 0) return;
      app ??= openApp(host, outputs, log);
      await begin(run, components, await app, host, log, record);
    },
    end: (graceMs) => current?.end(graceMs) ?? Promise.resolve(),
    async changed({ category, before, now }, graceMs) {
      const run = current;
      if (category !== "bindings" || run === undefined || run.signal.aborted) return;
      if (before !== undefined) await run.drop(before, graceMs);
      const component = now as OpenComponent<Binding> | undefined;
      if (component === undefined || !isInput(component)) return;
      app ??= openApp(host, outputs, log);
      await begin(run, [component], await app, host, log, record);
    },
  };
}

type Record = (name: string, success: boolean, latencyMs: number) => void;

/** One period in which the app takes events. */
class Run {
  readonly #ending = new AbortController();
  readonly #readings = new Map<OpenComponent, BindingReading>();

  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  async keep(component: OpenComponent, reading: BindingReading): Promise<void> {
    if (this.signal.aborted) await reading.stop(0);
    else this.#readings.set(component, reading);
  }

  async drop(component: OpenComponent, graceMs: number): Promise<void> {
    const reading = this.#readings.get(component);
    this.#readings.delete(component);
    await reading?.stop(graceMs);
  }

  async end(graceMs: number): Promise<void> {
    this.#ending.abort(new Error("delivery of binding events ends"));
    const readings = [...this.#readings.values()];
    this.#readings.clear();
    await Promise.allSettled(readings.map((reading) => reading.stop(graceMs)));
  }
}

/** An app that cannot be asked about one binding is not asked about the rest. */
async function begin(
  run: Run,
  components: readonly OpenComponent<Binding>[],
  app: BindingApp,
  host: BlockHost,
  log: Log,
  record: Record,
): Promise<void> {
  for (const component of components) {
    if (run.signal.aborted) return;
    const { name } = component.resource;
    const route = routeOf(component);
    // Another may have taken its place while the app was asked about those before it.
    if (host.components.get("bindings", name) !== component) continue;
    try {
      const wanted =
        directionOf(component.properties).explicit || (await asked(app, name, route, host, run.signal));
      if (!wanted) {
        log.info(`app has not subscribed to binding ${name}.`);
        continue;
      }
    } catch (error) {
      if (!run.signal.aborted) log.error(`cannot ask the app about input bindings: ${textOf(error)}`);
      return;
    }
    const attempt = (): Promise<boolean> => read(run, component, app, route, host, log, record);
    if (!(await attempt())) void keepTrying(run, component, host, attempt);
  }
}

/** Waits between tries to read a source that is away, ms: doubled each time up to the limit. */
const firstRetryMs = 500;
const maxRetryMs = 15_000;

/** Until it reads, the run ends, or another component has taken its place. Never rejects. */
async function keepTrying(
  run: Run,
  component: OpenComponent,
  { clock, components }: BlockHost,
  attempt: () => Promise<boolean>,
): Promise<void> {
  const { signal } = run;
  const stays = (): boolean =>
    !signal.aborted && components.get("bindings", component.resource.name) === component;
  for (let waitMs = firstRetryMs; stays(); waitMs = Math.min(waitMs * 2, maxRetryMs)) {
    await clock.sleep(waitMs, signal).catch(() => {});
    if (!stays() || !(await attempt())) continue;
    if (!stays()) await run.drop(component, 0);
    return;
  }
}

async function asked(
  app: BindingApp,
  name: string,
  route: string,
  { clock, options }: BlockHost,
  signal: AbortSignal,
): Promise<boolean> {
  const limit = new AbortController();
  const limitMs = options.app.bindingOptionsTimeoutMs;
  const timer = clock.setTimeout(
    () => limit.abort(new Error(`no answer within ${limitMs} ms (--app-binding-options-timeout)`)),
    limitMs,
  );
  try {
    return await app.wants(name, route, AbortSignal.any([signal, limit.signal]));
  } finally {
    timer.cancel();
  }
}

/** False when the source cannot be read now. */
async function read(
  run: Run,
  component: OpenComponent<Binding>,
  app: BindingApp,
  route: string,
  host: BlockHost,
  log: Log,
  record: Record,
): Promise<boolean> {
  const { name } = component.resource;
  const { clock, policies } = host;
  const guard = policies.component(name, "Binding", "inbound");
  try {
    const reading = await component.port.read!(async (event, signal) => {
      if (run.signal.aborted) throw new Error(`binding ${name} takes no more events: the app is not there`);
      const startMs = clock.monotonicMs();
      let success = false;
      try {
        const attempt = (now: AbortSignal): Promise<Uint8Array> =>
          deliverTraced(host, app, name, route, event, now);
        const answer = await callUnder(guard, signal, attempt, judge);
        success = true;
        return answer;
      } finally {
        record(name, success, clock.monotonicMs() - startMs);
      }
    });
    await run.keep(component, reading);
    log.info(`binding ${name} delivers to the app`);
    return true;
  } catch (error) {
    log.error(`error reading from input binding ${name}: ${textOf(error)}; trying again`);
    return false;
  }
}

/** Under the trace that the event's metadata names; undefined when tracing is off. */
function eventSpan(
  { tracing, app }: BlockHost,
  name: string,
  route: string,
  { metadata }: BindingEvent,
): Span | undefined {
  const { tracer } = tracing;
  if (tracer === undefined) return undefined;
  const binary = metadata["grpc-trace-bin"];
  const parent = binary === undefined ? metadata["traceparent"] : readBinaryHeader(binary).traceparent;
  const span = tracer.start(`bindings/${name}`, "client", parent);
  span.set("db.name", name);
  span.set("db.system", "bindings");
  span.set("rpc.service", "Dapr");
  const grpc = "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent";
  span.set("db.connection_string", app.protocol === "grpc" ? grpc : `POST /${route.replace(/^\//, "")}`);
  return span;
}

/** One try to hand an event over, with a span of its own. */
async function deliverTraced(
  host: BlockHost,
  app: BindingApp,
  name: string,
  route: string,
  event: BindingEvent,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const span = eventSpan(host, name, route, event);
  try {
    return await app.deliver(name, route, event, span, signal);
  } catch (error) {
    if (span?.error === undefined) span?.fail(textOf(error));
    throw error;
  } finally {
    span?.end();
  }
}

function isInput(component: OpenComponent<Binding>): boolean {
  return component.port.read !== undefined && directionOf(component.properties).input;
}

/** Path of the app, metadata `route`; the component's name unless given. */
function routeOf(component: OpenComponent): string {
  return propertyOf(component.properties, "route") || component.resource.name;
}

/** The gRPC side is imported only for gRPC apps, since generated messages cost start time. */
async function openApp(host: BlockHost, outputs: Outputs, log: Log): Promise<BindingApp> {
  if (host.app.protocol !== "grpc") return openHttpApp(host.app);
  return (await import("./grpc-app.ts")).openGrpcApp(host.app, outputs, log);
}

function createRecord({ metrics, options }: BlockHost): Record {
  const labels = ["component", "namespace", "success"];
  const count = metrics.count("component_input_binding_count", "Events of input bindings.", labels);
  const latency = metrics.latency(
    "component_input_binding_latencies",
    "Time the app took for events of input bindings, ms.",
    labels,
  );
  return (name, success, latencyMs) => {
    count(name, options.namespace, String(success));
    latency(latencyMs, name, options.namespace, String(success));
  };
}
