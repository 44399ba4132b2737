/** A plug-in that hands events to the app (input), does what the app asks (output), or both. */
import { InputBinding, OutputBinding } from "../../../proto/gen/dapr/proto/components/v1/bindings_pb.ts";
import type { Binding, BindingHandler, BindingReading } from "../../blocks/bindings/port.ts";
import { textOf } from "../../lib/thrown.ts";
import { keepDelivering } from "./delivery.ts";
import type { OpenPlugin } from "./find.ts";
import type { Plugin } from "./plugin.ts";

export async function openBinding({ plugin, services, context }: OpenPlugin): Promise<Binding> {
  const { method } = OutputBinding;
  const metadata = { properties: context.properties };
  const isInput = services.has("InputBinding");
  const isOutput = services.has("OutputBinding");
  await plugin.initialise(async (signal) => {
    if (isInput) await plugin.bare(InputBinding.method.init, { metadata }, signal);
    if (isOutput) await plugin.bare(method.init, { metadata }, signal);
  }, context.signal);
  const operations = isOutput
    ? (await plugin.call(method.listOperations, {}, context.signal)).operations
    : [];
  const directions = [...(isInput ? ["INPUT_BINDING"] : []), ...(isOutput ? ["OUTPUT_BINDING"] : [])];
  const port: Binding & { readonly capabilities: readonly string[] } = {
    capabilities: directions,
    operations,
    ...(isOutput && {
      async invoke(request, signal) {
        const answer = await plugin.call(method.invoke, request, signal);
        return { data: answer.data, metadata: answer.metadata };
      },
    }),
    ...(isInput && { read: async (handler) => readEvents(plugin, context.name, handler) }),
    async close() {
      plugin.close();
    },
  };
  return port;
}

/** Every event is answered with the app's answer, or with the error of its handling. */
function readEvents(plugin: Plugin, name: string, handler: BindingHandler): BindingReading {
  return keepDelivering(plugin, `binding ${name}`, ({ signal, handle }) =>
    plugin.stream(
      InputBinding.method.read,
      (wire) =>
        async ({ messageId, data, metadata }) => {
          try {
            const answer = await handle(() => handler({ data, metadata }, signal));
            if (answer !== undefined) wire.send({ messageId, responseData: answer });
          } catch (error) {
            wire.send({ messageId, responseError: { message: textOf(error) } });
          }
        },
      signal,
    ),
  );
}
