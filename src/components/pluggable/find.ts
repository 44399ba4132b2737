/**
 * Finds plug-ins: each unix socket of a folder is asked by reflection which services it has, and gives a component
 * type for each category among them. What does not answer is told and left out.
 */
import { readdir } from "node:fs/promises";
import { join, parse } from "node:path";
import type { Clock } from "../../../mesh/index.ts";
import { ServerReflection } from "../../../proto/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import type { ComponentContext, ComponentFile } from "../component.ts";
import type { ComponentEntry } from "../index.gen.ts";
import { openBinding } from "./binding.ts";
import { initTimeoutMs, Plugin, within } from "./plugin.ts";
import { openPubSub } from "./pubsub.ts";
import { openSecretStore } from "./secrets.ts";
import { openStateStore } from "./state.ts";

/** Sockets that are asked at once. */
const maxAsked = 16;
const packageName = "dapr.proto.components.v1.";

/** What opening needs beside the component. */
export type OpenPlugin = {
  readonly plugin: Plugin;
  /** Without their package. */
  readonly services: ReadonlySet<string>;
  readonly context: ComponentContext;
};

type Opener = (plugin: OpenPlugin) => Promise<unknown>;

/** Service that makes a category, and what opens a component of it. */
const kinds: readonly (readonly [service: string, category: string, open: Opener])[] = [
  ["StateStore", "state", openStateStore],
  ["SecretStore", "secretstores", openSecretStore],
  ["PubSub", "pubsub", openPubSub],
  ["InputBinding", "bindings", openBinding],
  ["OutputBinding", "bindings", openBinding],
];

/** Component types of the plug-ins in this folder, by name of their socket. Never rejects. */
export async function findPlugins(folder: string, clock: Clock, log: Log): Promise<ComponentEntry[]> {
  const found: ComponentEntry[][] = [];
  try {
    const files = await readdir(folder, { withFileTypes: true });
    const sockets = files
      .filter((file) => file.isSocket())
      .map(({ name }) => name)
      .toSorted();
    await eachAtMost(sockets, maxAsked, async (name) => {
      const socketPath = join(folder, name);
      try {
        found.push(entriesOf(socketPath, await servicesOf(socketPath, clock, log)));
      } catch (error) {
        log.error(`plug-in ${socketPath} is left out: it cannot be asked for its services: ${textOf(error)}`);
      }
    });
  } catch (error) {
    log.error(`plug-ins in ${folder} cannot be looked for: ${textOf(error)}`);
  }
  const entries = found.flat().toSorted((a, b) => (a.type < b.type ? -1 : 1));
  if (entries.length > 0) log.info(`plug-ins give the types ${entries.map(({ type }) => type).join(", ")}`);
  return entries;
}

async function servicesOf(socketPath: string, clock: Clock, log: Log): Promise<ReadonlySet<string>> {
  const plugin = new Plugin({ socketPath, component: undefined, clock, log });
  const services = new Set<string>();
  try {
    const late = "it did not answer in time";
    await within(clock, initTimeoutMs, late, (signal) =>
      plugin.stream(
        ServerReflection.method.serverReflectionInfo,
        (wire) => {
          wire.send({ messageRequest: { case: "listServices", value: "" } });
          return ({ messageResponse }) => {
            if (messageResponse.case === "errorResponse") throw new Error(messageResponse.value.errorMessage);
            if (messageResponse.case !== "listServicesResponse") return;
            for (const { name } of messageResponse.value.service)
              if (name.startsWith(packageName)) services.add(name.slice(packageName.length));
            wire.finish();
          };
        },
        signal,
      ),
    );
  } finally {
    plugin.close();
  }
  return services;
}

function entriesOf(socketPath: string, services: ReadonlySet<string>): ComponentEntry[] {
  const entries = new Map<string, ComponentEntry>();
  for (const [service, category, open] of kinds) {
    if (!services.has(service)) continue;
    const type = `${category}.${parse(socketPath).name}`.toLowerCase();
    const file: ComponentFile = {
      type,
      versions: ["v1"],
      metadataSchema: {},
      openMetadata: true,
      capabilities: [],
      open: (context) => openPlugin(socketPath, services, open, context),
    };
    entries.set(type, { type, load: () => Promise.resolve(file) });
  }
  return [...entries.values()];
}

async function openPlugin(
  socketPath: string,
  services: ReadonlySet<string>,
  open: Opener,
  context: ComponentContext,
): Promise<unknown> {
  const { name: component, clock, log } = context;
  const plugin = new Plugin({ socketPath, component, clock, log });
  try {
    return await open({ plugin, services, context });
  } catch (error) {
    plugin.close();
    throw error;
  }
}
