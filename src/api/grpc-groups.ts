/** Which API group a gRPC method of the sidecar belongs to, for API lists: `state.v1`, `lock.v1alpha1`. */

/** Group by the method's name without the suffix of its version; the first that fits. */
const groups: readonly (readonly [RegExp, string])[] = [
  [/^InvokeService$/, "invoke"],
  [/^(Get|GetBulk|Save|Query|Delete|DeleteBulk)State$|^ExecuteStateTransaction$/, "state"],
  [/^(Bulk)?PublishEvent$/, "publish"],
  [/^SubscribeTopicEvents$/, "subscribe"],
  [/^InvokeBinding$/, "bindings"],
  [/^Get(Bulk)?Secret$/, "secrets"],
  [/Actor/, "actors"],
  [/^[GS]etMetadata$/, "metadata"],
  [/Configuration$/, "configuration"],
  [/^TryLock$/, "lock"],
  [/^Unlock$/, "unlock"],
  [/^(En|De)crypt$/, "crypto"],
  [/^Subtle/, "subtlecrypto"],
  [/Workflow$/, "workflows"],
  [/Jobs?(ByPrefix)?$/, "jobs"],
  [/^Converse$/, "conversation"],
  [/^Shutdown$/, "shutdown"],
];

/** Services of ours beside Dapr's. */
const own: readonly (readonly [string, string])[] = [["/weft.runtime.v1.StateExtensions/", "state.v1weft1"]];

/** `<group>.<version>` of a method path; empty for one that belongs to no group. */
export function grpcGroup(path: string): string {
  for (const [prefix, group] of own) if (path.startsWith(prefix)) return group;
  const name = path.slice(path.lastIndexOf("/") + 1);
  const version = /(Alpha|Beta)\d+$/.exec(name)?.[0] ?? "";
  const bare = name.slice(0, name.length - version.length);
  const group = groups.find(([pattern]) => pattern.test(bare))?.[1];
  return group === undefined ? "" : `${group}.v1${version.toLowerCase()}`;
}
