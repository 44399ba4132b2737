/**
 * The policies of a running sidecar. Changed resources become policies of their own, which take the place of the old
 * ones at once; calls under way end under those they began with. See docs/decisions/0025-changes-apply-in-place.md.
 */
import type { ResiliencyResource } from "../config/kinds/resiliency.ts";
import type { CompiledPolicies, PoliciesInit, PolicyCompiler } from "./compile.ts";
import type { BuiltInRetry } from "./built-in.ts";
import type { Direction } from "./monitor.ts";
import { type ActorPolicies, type ComponentKind, noPolicies, type Policies } from "./policies.ts";
import type { Guard, Policy } from "./policy.ts";
import type { RetryRule } from "./retry.ts";

type Place = {
  policy: Policy | undefined;
  readonly kind: ComponentKind;
  readonly direction: Direction;
};

/** One per sidecar; without any policy until `set`. */
export class RunningPolicies implements Policies {
  readonly #init: PoliciesInit;
  #compiler: PolicyCompiler | undefined;
  #now: CompiledPolicies = { ...noPolicies, component: () => undefined };
  /** By component; of what was ever there, so that a guard stays good. */
  readonly #places = new Map<string, Place[]>();

  constructor(init: PoliciesInit) {
    this.#init = init;
  }

  /** What cannot be used of the resources is logged and keeps what it was. The compiler is loaded with the first. */
  async set(resources: readonly ResiliencyResource[]): Promise<void> {
    if (this.#compiler === undefined) {
      if (resources.length === 0) return;
      const { PolicyCompiler } = await import("./compile.ts");
      this.#compiler = new PolicyCompiler(this.#init);
    }
    this.#now = this.#compiler.compile(resources);
    for (const [name, places] of this.#places)
      for (const place of places) place.policy = this.#now.component(name, place.kind, place.direction);
  }

  app(id: string, endpoint: string): Policy | undefined {
    return this.#now.app(id, endpoint);
  }

  targetsApp(id: string): boolean {
    return this.#now.targetsApp(id);
  }

  component(name: string, kind: ComponentKind, direction: Direction): Guard {
    const places = this.#places.get(name);
    const found = places?.find((place) => place.kind === kind && place.direction === direction);
    if (found !== undefined) return found;
    const place = { kind, direction, policy: this.#now.component(name, kind, direction) };
    this.#places.set(name, [...(places ?? []), place]);
    return place;
  }

  actor(type: string, id: string): ActorPolicies | undefined {
    return this.#now.actor(type, id);
  }

  builtIn(name: BuiltInRetry): RetryRule {
    return this.#now.builtIn(name);
  }
}
