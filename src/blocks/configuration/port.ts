/**
 * What a configuration store must do: give items by key, and tell of each change of them. One contract suite
 * (test/contract/configurationstore.ts) runs against every store.
 */

export type Metadata = Readonly<Record<string, string>>;

/** One value. All members of a deleted item are empty. */
export type ConfigurationItem = {
  readonly value: string;
  readonly version: string;
  readonly metadata: Metadata;
};

/** As subscribers see a key that was deleted. */
export const deletedItem: ConfigurationItem = Object.freeze({ value: "", version: "", metadata: {} });

/** Called once per change, in their order. Must not throw and returns at once. */
export type OnChange = (key: string, item: ConfigurationItem) => void;

export type ConfigurationSubscription = {
  /** No change is told after it was called. Resolves when the store watches no longer. */
  stop(): Promise<void>;
};

/** All methods may run at once and reject with a readable Error. `keys` empty: all there are. */
export type ConfigurationStore = {
  /** As the metadata API lists them, where they hang on the component's metadata; else those of its file. */
  readonly capabilities?: readonly string[];
  /** Keys that the store does not have are left out. */
  get(
    keys: readonly string[],
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ConfigurationItem>>;
  /** Tells what changes from when it resolves, also after the store was away for a while. */
  subscribe(
    keys: readonly string[],
    metadata: Metadata,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<ConfigurationSubscription>;
  /** Called once, when no call runs any more and every subscription was stopped. */
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where it does not tell. */
  awaySinceMs?(): number | undefined;
  close(): Promise<void>;
};
