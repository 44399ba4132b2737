/**
 * A pub/sub component as the block uses it: its port with everything that is decided by the component's metadata
 * (scopes, namespaced topics) worked out once.
 */
import type { OpenComponent, OpenComponents } from "../../components/open.ts";
import type { Policies } from "../../resiliency/policies.ts";
import type { Guard } from "../../resiliency/policy.ts";
import type { PubSub } from "./port.ts";
import { readScopes } from "./scopes.ts";
import type { TopicScopes } from "./scopes.ts";

export type Broker = {
  readonly name: string;
  readonly port: PubSub;
  readonly scopes: TopicScopes;
  /** True when the component drops outdated messages itself. */
  readonly keepsTtl: boolean;
  /** True when waiting for more messages makes no sense, as they come one by one. */
  readonly immediateBulk: boolean;
  /** True when each replica of the app is a consumer group of its own. */
  readonly groupPerReplica: boolean;
  /** Around each delivery to the app, and around each call of the component. */
  readonly inbound: Guard;
  readonly outbound: Guard;
  /** Name of an app's topic at the component, and back. */
  stored(topic: string): string;
  shown(topic: string): string;
};

export type Brokers = {
  get(name: string): Broker | undefined;
  /** True when at least one pub/sub component is there. */
  any(): boolean;
};

/** Looks brokers up in the open components; what is worked out stays valid as long as the component stays open. */
export function createBrokers(
  components: OpenComponents,
  appId: string,
  namespace: string,
  policies: Policies,
): Brokers {
  const known = new Map<string, { readonly open: OpenComponent<PubSub>; readonly broker: Broker }>();
  return {
    get(name) {
      const open = components.get<PubSub>("pubsub", name);
      if (open === undefined) return undefined;
      const entry = known.get(name);
      if (entry?.open === open) return entry.broker;
      const broker = describe(open, appId, namespace, policies);
      known.set(name, { open, broker });
      return broker;
    },
    any: () => components.all("pubsub").length > 0,
  };
}

function describe(open: OpenComponent<PubSub>, appId: string, namespace: string, policies: Policies): Broker {
  const { name } = open.resource;
  const written = open.resource.metadata.map((item) => item.value ?? "");
  const prefix = written.some((value) => value.includes("{namespace}")) ? namespace : "";
  return {
    name,
    port: open.port,
    scopes: readScopes(open.properties, appId),
    keepsTtl: open.capabilities.includes("MESSAGE_TTL"),
    immediateBulk: open.capabilities.includes("BULK_SUBSCRIBE_IMMEDIATE"),
    groupPerReplica: open.resource.metadata.some(
      (item) => /^consumer(?:id|group)$/i.test(item.name) && /\{uuid\}|\{podName\}/.test(item.value ?? ""),
    ),
    inbound: policies.component(name, "Pubsub", "inbound"),
    outbound: policies.component(name, "Pubsub", "outbound"),
    stored: prefix === "" ? (topic) => topic : (topic) => prefix + topic,
    shown: (topic) => (prefix !== "" && topic.startsWith(prefix) ? topic.slice(prefix.length) : topic),
  };
}
