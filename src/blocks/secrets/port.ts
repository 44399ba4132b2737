/**
 * What a secret store must do. A secret has one or more named texts; a store of plain values gives one text under the
 * secret's own name. One contract suite (test/contract/secretstore.ts) runs against every store.
 */

/** Texts of one secret by field name. */
export type Secret = Readonly<Record<string, string>>;

/** All methods may run at once, change nothing, and reject with a readable Error that names no value of a secret. */
export type SecretStore = {
  /** As the metadata API lists them, where they hang on the component's metadata; else those of its file. */
  readonly capabilities?: readonly string[];
  /** Undefined for a secret that the store has without any data. Rejects when there is no such secret. */
  get(
    name: string,
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Secret | undefined>;
  /** Every secret by name. */
  getAll(
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, Secret>>>;
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where there is none. */
  awaySinceMs?(): number | undefined;
  /** Called once, when no call runs any more. */
  close(): Promise<void>;
};
