/**
 * The first parts of component types (`state` of `state.redis`), one row each: the words for them in messages, and
 * the metadata that any component of the category may carry because its block reads it.
 * A category needs no more than its row: ports stand in blocks/<block>/port.ts, components in the folder of that name.
 */

export type Category = {
  /** As in `couldn't find <word> <type>/<version>`. */
  readonly word: string;
  /** Metadata names that belong to the block, not to the component. */
  readonly sharedFields?: readonly string[];
};

/** By the name as it must be written in a type. */
const categories: Readonly<Record<string, Category>> = {
  state: {
    word: "state store",
    sharedFields: [
      "keyPrefix",
      "actorStateStore",
      "outboxPublishPubsub",
      "outboxPublishTopic",
      "outboxPubsub",
      "outboxDiscardWhenMissingState",
      "primaryEncryptionKey",
      "secondaryEncryptionKey",
    ],
  },
  pubsub: {
    word: "message bus",
    sharedFields: [
      "publishingScopes",
      "subscriptionScopes",
      "allowedTopics",
      "protectedTopics",
      "consumerID",
    ],
  },
  secretstores: { word: "secret store" },
  bindings: { word: "binding", sharedFields: ["direction", "route"] },
  configuration: { word: "configuration store" },
  lock: { word: "lock store", sharedFields: ["keyPrefix"] },
  crypto: { word: "crypto provider" },
  conversation: { word: "conversation" },
  nameresolution: { word: "name resolver" },
  middleware: { word: "middleware" },
};

/** The category of a type whose first part is written exactly so; undefined for any other. */
export function findCategory(type: string): Category | undefined {
  const name = type.split(".")[0]!;
  return Object.hasOwn(categories, name) ? categories[name] : undefined;
}

/** `state` of `state.redis`. */
export function categoryOf(type: string): string {
  return type.slice(0, type.indexOf(".")).toLowerCase();
}

/** Every category, as it must be written. */
export const categoryNames: readonly string[] = Object.keys(categories);

/** Metadata names that belong to the block of a category. */
export function sharedFieldsOf(category: string): readonly string[] {
  return (Object.hasOwn(categories, category) ? categories[category]?.sharedFields : undefined) ?? [];
}
