/**
 * Readers of decoded JSON that check kinds and name what is wrong. Absent and null count as empty everywhere. Member
 * names match in any case where they are read by `members` or `fields`, as clients of Go programs spell them freely.
 */

export type JsonFields = {
  /** The object itself, names as written. */
  object(value: unknown, what: string): Record<string, unknown>;
  /** Members with their names in lower case, in the order of the text. */
  members(value: unknown, what: string): [name: string, member: unknown][];
  /** Members by lower-case name; of several spellings the last counts. */
  fields(value: unknown, what: string): Readonly<Record<string, unknown>>;
  array(value: unknown, what: string): unknown[];
  text(value: unknown, what: string): string;
  /** An object of strings, names as written. */
  texts(value: unknown, what: string): Record<string, string>;
  boolean(value: unknown, what: string): boolean;
  /** Within the safe integers. */
  integer(value: unknown, what: string): number;
};

/**
 * `what` names a value in messages such as `"key" of item 3 must be a string, but is of type number`;
 * `problem` makes the error to throw of such a message.
 */
export function jsonFields(problem: (message: string) => Error): JsonFields {
  const wrongKind = (what: string, wanted: string, value: unknown): Error => {
    const found = Array.isArray(value) ? "an array" : `of type ${typeof value}`;
    return problem(`${what} must be ${wanted}, but is ${found}`);
  };
  const object: JsonFields["object"] = (value, what) => {
    if (value === undefined || value === null) return {};
    if (typeof value !== "object" || Array.isArray(value)) throw wrongKind(what, "an object", value);
    return value as Record<string, unknown>;
  };
  const members: JsonFields["members"] = (value, what) =>
    Object.entries(object(value, what)).map(([name, member]) => [name.toLowerCase(), member]);
  const text: JsonFields["text"] = (value, what) => {
    if (value === undefined || value === null) return "";
    if (typeof value !== "string") throw wrongKind(what, "a string", value);
    return value;
  };
  return {
    object,
    members,
    text,
    fields: (value, what) => Object.fromEntries(members(value, what)),
    array(value, what) {
      if (value === undefined || value === null) return [];
      if (!Array.isArray(value)) throw wrongKind(what, "an array", value);
      return value as unknown[];
    },
    texts(value, what) {
      const entries = Object.entries(object(value, what));
      return Object.fromEntries(
        entries.map(([name, member]) => [name, text(member, `${what} ${JSON.stringify(name)}`)]),
      );
    },
    boolean(value, what) {
      if (value === undefined || value === null) return false;
      if (typeof value !== "boolean") throw wrongKind(what, "true or false", value);
      return value;
    },
    integer(value, what) {
      if (value === undefined || value === null) return 0;
      if (!Number.isSafeInteger(value)) throw wrongKind(what, "a whole number", value);
      return value as number;
    },
  };
}
