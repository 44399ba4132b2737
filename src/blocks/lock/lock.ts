/**
 * The lock API without its protocols: checks the request, finds the store, makes the key and asks the store. http.ts
 * and grpc.ts decode and encode.
 */
import { MetadataError, propertyOf } from "../../components/component.ts";
import type { OpenComponent, OpenComponents } from "../../components/open.ts";
import type { Policies } from "../../resiliency/policies.ts";
import { callUnder } from "../../resiliency/policy.ts";
import * as errors from "./errors.ts";
import type { LockGrant, LockStore, Unlocked } from "./port.ts";

export type UnlockRequest = { readonly resourceId: string; readonly owner: string };
export type TryLockRequest = UnlockRequest & { readonly expirySeconds: number };

export type LocksInit = {
  readonly components: OpenComponents;
  readonly policies: Policies;
  readonly appId: string;
};

const separator = "||";

/** The lock stores of this sidecar as its app may use them. Methods reject with ApiError. */
export class Locks {
  readonly #components: OpenComponents;
  readonly #policies: Policies;
  readonly #appId: string;

  constructor({ components, policies, appId }: LocksInit) {
    this.#components = components;
    this.#policies = policies;
    this.#appId = appId;
  }

  /** Undefined when somebody holds the resource. */
  async tryLock(store: string, request: TryLockRequest, signal: AbortSignal): Promise<LockGrant | undefined> {
    if (request.expirySeconds <= 0) throw errors.expiryNotPositive(store);
    const component = this.#find(store, request);
    const guard = this.#policies.component(store, "Lock", "outbound");
    try {
      const key = this.#keyOf(component, request.resourceId);
      const { owner, expirySeconds } = request;
      return await callUnder(guard, signal, (now) =>
        component.port.tryLock({ key, owner }, expirySeconds, now),
      );
    } catch (cause) {
      throw errors.tryLockFailed(cause);
    }
  }

  async unlock(store: string, request: UnlockRequest, signal: AbortSignal): Promise<Unlocked> {
    const component = this.#find(store, request);
    const guard = this.#policies.component(store, "Lock", "outbound");
    try {
      const key = this.#keyOf(component, request.resourceId);
      return await callUnder(guard, signal, (now) =>
        component.port.unlock({ key, owner: request.owner }, now),
      );
    } catch (cause) {
      throw errors.unlockFailed(cause);
    }
  }

  /** The checks in the order that clients rely on. */
  #find(store: string, { resourceId, owner }: UnlockRequest): OpenComponent<LockStore> {
    if (this.#components.all("lock").length === 0) throw errors.storesNotConfigured();
    if (resourceId === "") throw errors.fieldEmpty("ResourceId", store);
    if (owner === "") throw errors.fieldEmpty("LockOwner", store);
    const component = this.#components.get<LockStore>("lock", store);
    if (component === undefined) throw errors.storeNotFound(store);
    return component;
  }

  /** `lock||<prefix>||<resource>`, without the middle for the strategy `none`. */
  #keyOf(component: OpenComponent<LockStore>, resourceId: string): string {
    if (resourceId.includes(separator)) throw new Error(errors.illegalKeyText(resourceId));
    const word = prefixWord(component);
    if (word === "none") return ["lock", resourceId].join(separator);
    const names: Readonly<Record<string, string>> = { appid: this.#appId, name: component.resource.name };
    const prefix = Object.hasOwn(names, word) ? names[word]! : word;
    return ["lock", prefix, resourceId].join(separator);
  }
}

/** Throws MetadataError when the component's `keyPrefix` cannot be used. */
export function checkLockStore(component: OpenComponent): void {
  const word = prefixWord(component);
  if (word.includes(separator)) throw new MetadataError("keyPrefix", errors.illegalKeyText(word));
}

/** Metadata `keyPrefix`: a strategy, or a prefix shared by all who write it. */
function prefixWord({ properties }: OpenComponent): string {
  return propertyOf(properties, "keyPrefix")?.toLowerCase() || "appid";
}
