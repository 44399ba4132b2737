/** Secrets that a plug-in holds. */
import type { SecretStore as Port } from "../../blocks/secrets/port.ts";
import { SecretStore } from "../../../proto/gen/dapr/proto/components/v1/secretstore_pb.ts";
import type { OpenPlugin } from "./find.ts";

export async function openSecretStore({ plugin, context }: OpenPlugin): Promise<Port> {
  const { method } = SecretStore;
  const metadata = { properties: context.properties };
  await plugin.initialise(
    async (signal) => void (await plugin.bare(method.init, { metadata }, signal)),
    context.signal,
  );
  const { features } = await plugin.call(method.features, {}, context.signal);
  return {
    capabilities: features,
    async get(key, asked, signal) {
      const { data } = await plugin.call(method.get, { key, metadata: asked }, signal);
      return Object.keys(data).length === 0 ? undefined : data;
    },
    async getAll(asked, signal) {
      const { data } = await plugin.call(method.bulkGet, { metadata: asked }, signal);
      return Object.fromEntries(Object.entries(data).map(([name, { secrets }]) => [name, secrets]));
    },
    async close() {
      plugin.close();
    },
  };
}
