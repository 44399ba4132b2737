/**
 * Whether a component must be opened anew: its definition and the secrets that it refers to as one text. Places in
 * files do not count.
 */
import type { ComponentResource, SecretSource } from "../config/kinds/component.ts";

/** The definition as text. Equal texts: nothing that matters has changed. */
export function definitionOf(resource: ComponentResource): string {
  const { name, type, version, initTimeoutMs, ignoreErrors, scopes, secretStore } = resource;
  const metadata = resource.metadata.map((item) => [item.name, item.value, item.secretKeyRef, item.envRef]);
  return JSON.stringify([
    name,
    type,
    version,
    initTimeoutMs,
    ignoreErrors,
    scopes,
    secretStore ?? null,
    metadata,
  ]);
}

/**
 * The texts of the secrets that the component refers to, as one text; undefined when they cannot be read now, which
 * says nothing about a change.
 */
export async function secretsOf(
  resource: ComponentResource,
  namespace: string,
  { defaultSecretStore, readSecret }: SecretSource,
): Promise<string | undefined> {
  const references = resource.metadata.flatMap(({ value, envRef, secretKeyRef }) =>
    secretKeyRef === undefined || (value === undefined && envRef !== undefined) ? [] : [secretKeyRef],
  );
  const store = resource.secretStore ?? defaultSecretStore;
  if (references.length === 0 || store === undefined) return "";
  const texts: (string | null)[] = [];
  try {
    for (const { name, key } of references) {
      const secret = await readSecret(store, name, { namespace: resource.namespace ?? namespace });
      if (secret === undefined) return undefined;
      const field = key === "" ? name : key;
      texts.push(Object.hasOwn(secret, field) ? (secret[field] ?? null) : null);
    }
  } catch {
    return undefined;
  }
  return JSON.stringify(texts);
}
