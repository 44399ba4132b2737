/**
 * How a user's key becomes the key in the store: `<prefix>||<key>`, the prefix chosen by the component's
 * metadata `keyPrefix`, so that apps share or do not share a store.
 */

const separator = "||";

/** True when a user's key would be read back as a prefix and a key. */
export function holdsSeparator(key: string): boolean {
  return key.includes(separator);
}

export type PrefixNames = {
  readonly appId: string;
  readonly store: string;
  /** As the environment gives it; undefined or empty when it does not. */
  readonly namespace: string | undefined;
};

/**
 * Text to put before every user key, separator included (empty for strategy `none`).
 * `strategy` is the metadata value, undefined = `appid`; any word that is no strategy is the prefix itself.
 */
export function keyPrefix(strategy: string | undefined, names: PrefixNames): string {
  const value = (strategy ?? "appid").toLowerCase();
  switch (value) {
    case "appid":
      return names.appId + separator;
    case "name":
      return names.store + separator;
    case "namespace":
      return (names.namespace ? `${names.namespace}.${names.appId}` : names.appId) + separator;
    case "none":
      return "";
    default:
      return value + separator;
  }
}
