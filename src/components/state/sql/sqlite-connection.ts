/** Connection strings of SQLite as Dapr's users write them: a path, a `file:` URI with options, or `:memory:`. */

export type SqliteConnection = {
  /** What SQLite opens: a `file:` URI or `:memory:`. */
  readonly location: string;
  readonly readOnly: boolean;
  readonly inMemory: boolean;
  /** Statements from `_pragma` options, to be run first. */
  readonly pragmas: readonly string[];
};

/** Pragmas that have metadata fields of their own, or must stay as they are. */
const refused: Readonly<Record<string, string>> = {
  busy_timeout: "use the metadata field busyTimeout",
  journal_mode: "use the metadata field disableWAL",
  foreign_keys: "remove it",
};

/** Throws an Error naming an option that cannot be taken. */
export function readConnectionString(text: string): SqliteConnection {
  const [path = "", query = ""] = splitAt(text, "?");
  const options = new URLSearchParams(query);
  const pragmas = options.getAll("_pragma").map(pragmaStatement);
  for (const own of ["_pragma", "_txlock", "_time_format"]) options.delete(own);
  const bare = path.replace(/^file:/, "");
  if (bare.startsWith(":memory:") || options.get("mode") === "memory") {
    return { location: ":memory:", readOnly: false, inMemory: true, pragmas };
  }
  const readOnly = options.get("mode") === "ro" || isTrue(options.get("immutable"));
  const rest = options.toString();
  return { location: `file:${bare}${rest === "" ? "" : `?${rest}`}`, readOnly, inMemory: false, pragmas };
}

/** `name(value)` or `name=value`. */
function pragmaStatement(option: string): string {
  const match = /^\s*(\w+)\s*(?:\(\s*([\w.+-]*)\s*\)|=\s*([\w.+-]+))?\s*$/.exec(option);
  if (match === null) throw new Error(`connection string: _pragma=${option} has not the form name(value)`);
  const [, name = "", inside, after] = match;
  const why = refused[name.toLowerCase()];
  if (why !== undefined) throw new Error(`connection string: _pragma=${name} is not allowed; ${why}`);
  const value = inside ?? after;
  return value === undefined ? `PRAGMA ${name}` : `PRAGMA ${name} = ${value}`;
}

function isTrue(text: string | null): boolean {
  return text !== null && /^(1|true|yes|on)$/i.test(text);
}

function splitAt(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
