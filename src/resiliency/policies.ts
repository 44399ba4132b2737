/**
 * The policies of one sidecar as blocks see them, by what they stand around. Where none applies a call is made without,
 * so that nothing is paid where nothing is configured. They change while the sidecar runs (running.ts).
 */
import { type BuiltInRetry, builtInRetries } from "./built-in.ts";
import type { Direction } from "./monitor.ts";
import type { Guard, Policy } from "./policy.ts";
import type { RetryRule } from "./retry.ts";

/** Kinds of components in the names of default policies and in the labels of metrics. */
export type ComponentKind =
  | "Statestore"
  | "Pubsub"
  | "Binding"
  | "Secretstore"
  | "Configuration"
  | "Lock"
  | "Crypto"
  | "Conversation";

/** `call` goes around finding the actor and calling it, `turn` around the actor's own work, once it holds its lock. */
export type ActorPolicies = { readonly call: Policy | undefined; readonly turn: Policy | undefined };

/** To be asked anew for each call. */
export type Policies = {
  /**
   * Policy of calls to an app, HTTP endpoint or URL. `id` as the caller writes it (for a URL the base URL). `endpoint`
   * tells breakers apart: a path of the app, a gRPC method, the base URL of an endpoint.
   */
  app(id: string, endpoint: string): Policy | undefined;
  /** A resource has an entry for this id, even an empty one; then no built-in retries apply to it. */
  targetsApp(id: string): boolean;
  /** May be kept. */
  component(name: string, kind: ComponentKind, direction: Direction): Guard;
  actor(type: string, id: string): ActorPolicies | undefined;
  /** A retry that is there without any resource, as redefined. */
  builtIn(name: BuiltInRetry): RetryRule;
};

const unguarded: Guard = Object.freeze({ policy: undefined });

/** Of a sidecar without Resiliency resources. */
export const noPolicies: Policies = Object.freeze({
  app: () => undefined,
  targetsApp: () => false,
  component: () => unguarded,
  actor: () => undefined,
  builtIn: (name: BuiltInRetry) => builtInRetries[name],
});
