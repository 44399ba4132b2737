/**
 * Output: what the app asks a binding to do. Knows neither HTTP nor gRPC; http.ts and grpc.ts decode into `invoke`.
 */
import { directionOf } from "../../components/component.ts";
import type { OpenComponent, OpenComponents } from "../../components/open.ts";
import { callUnder } from "../../resiliency/policy.ts";
import type { BlockHost } from "../block.ts";
import { invokeFailed, noOperation, notFound, unsupported } from "./errors.ts";
import { type Binding, BindingFailure, type BindingRequest, type BindingResponse } from "./port.ts";

export type Outputs = {
  /** Rejects with ApiError. Undefined: the binding did it and has nothing to tell. */
  invoke(name: string, request: BindingRequest, signal: AbortSignal): Promise<BindingResponse | undefined>;
};

export function openOutputs(
  host: Pick<BlockHost, "components" | "clock" | "metrics" | "options" | "policies">,
): Outputs {
  const { components, clock, metrics, policies } = host;
  const { namespace } = host.options;
  const labels = ["component", "namespace", "operation", "success"];
  const count = metrics.count("component_output_binding_count", "Calls of output bindings.", labels);
  const latency = metrics.latency(
    "component_output_binding_latencies",
    "Time of calls of output bindings, ms.",
    labels,
  );
  return {
    async invoke(name, request, signal) {
      const { operation } = request;
      const startMs = clock.monotonicMs();
      let success = "false";
      let called = false;
      try {
        const run = prepare(components, name, operation);
        called = true;
        const guard = policies.component(name, "Binding", "outbound");
        const response = await callUnder(guard, signal, (now) => run(request, now));
        success = "true";
        return response;
      } catch (error) {
        throw invokeFailed(name, error, error instanceof BindingFailure ? error.metadata : {});
      } finally {
        if (called) {
          count(name, namespace, operation, success);
          latency(clock.monotonicMs() - startMs, name, namespace, operation, success);
        }
      }
    },
  };
}

/** The component's `invoke`, after the checks in the order clients rely on. */
function prepare(
  components: OpenComponents,
  name: string,
  operation: string,
): (request: BindingRequest, signal: AbortSignal) => Promise<BindingResponse | undefined> {
  if (operation === "") throw noOperation();
  const component = components.get<Binding>("bindings", name);
  const port = component?.port;
  if (component === undefined || port?.invoke === undefined || !directionOf(component.properties).output) {
    throw notFound(name);
  }
  if (!port.operations.includes(operation)) throw unsupported(name, operation, port.operations);
  return (request, signal) => port.invoke!(request, signal);
}

/** Throws MetadataError when the component's direction cannot be used. */
export function checkBinding({ properties }: OpenComponent): void {
  directionOf(properties);
}
