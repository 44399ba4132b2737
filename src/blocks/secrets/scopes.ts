/** Which secrets the app may read: `spec.secrets.scopes` of the Configuration, compiled once. */
import type { SecretScope } from "../../config/kinds/configuration.ts";

/** True when the app may read the secret of that store. */
export type SecretPolicy = (store: string, secret: string) => boolean;

/** A store without a scope gives everything. A list of allowed secrets that is not empty decides alone. */
export function compileScopes(scopes: readonly SecretScope[]): SecretPolicy {
  if (scopes.length === 0) return () => true;
  const byStore = new Map(scopes.map((scope) => [scope.storeName, compile(scope)]));
  return (store, secret) => byStore.get(store)?.(secret) ?? true;
}

function compile(scope: SecretScope): (secret: string) => boolean {
  const { defaultAccess, allowedSecrets, deniedSecrets } = scope;
  if (allowedSecrets.length > 0) {
    const allowed = new Set(allowedSecrets);
    return (secret) => allowed.has(secret);
  }
  const denied = new Set(deniedSecrets);
  return (secret) => !denied.has(secret) && defaultAccess === "allow";
}
