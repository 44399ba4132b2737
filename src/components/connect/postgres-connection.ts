/** Connection strings of PostgreSQL, as URL or as `key=value` words, into what the client library takes. */
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";

/** Fields of a component that win over the connection string. */
export type PostgresOverrides = Readonly<
  Partial<
    Record<
      "host" | "hostaddr" | "port" | "database" | "user" | "password" | "sslRootCert",
      string | undefined
    >
  >
>;

export type PostgresConnection = {
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly password?: string;
  readonly database?: string;
  readonly application_name?: string;
  readonly options?: string;
  readonly connectTimeoutMs?: number;
  readonly poolMax?: number;
  /** `prefer`: TLS where the server offers it. */
  readonly ssl: false | "prefer" | ConnectionOptions;
};

/** Words with a meaning of their own; any other is a setting of the session. */
const known = new Set([
  "host",
  "hostaddr",
  "port",
  "user",
  "password",
  "dbname",
  "database",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "connect_timeout",
  "application_name",
  "options",
  "pool_max_conns",
]);

/** Words that only other client libraries know and that have no meaning here. */
const ignored = new RegExp(
  "^(pool_.*|min_.*|krb.*|service.*|statement_cache_.*|description_cache_.*|default_query_exec_mode|" +
    "target_session_attrs|sslsni|passfile|fallback_application_name)$",
);

/** Throws an Error that names what cannot be read; it never quotes the text, which may hold a password. */
export function readPostgresConnection(text: string, overrides: PostgresOverrides = {}): PostgresConnection {
  const words = /^postgres(?:ql)?:\/\//.test(text) ? wordsOfUrl(text) : wordsOfDsn(text);
  const override = (name: string, value: string | undefined): void => {
    if (value !== undefined && value !== "") words.set(name, value);
  };
  override("host", overrides.host);
  override("hostaddr", overrides.hostaddr);
  override("port", overrides.port);
  override("database", overrides.database);
  override("user", overrides.user);
  override("password", overrides.password);
  override("sslrootcert", overrides.sslRootCert);
  const host = words.get("hostaddr") ?? words.get("host");
  const settings = [...words].filter(([name]) => !known.has(name) && !ignored.test(name));
  const options = [
    ...(words.has("options") ? [words.get("options")!] : []),
    ...settings.map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, String.raw`\$&`)}`),
  ].join(" ");
  return compact({
    host,
    port: numberOf(words, "port"),
    user: words.get("user"),
    password: words.get("password"),
    database: words.get("database") ?? words.get("dbname"),
    application_name: words.get("application_name"),
    options: options === "" ? undefined : options,
    connectTimeoutMs: (numberOf(words, "connect_timeout") ?? 0) * 1000 || undefined,
    poolMax: numberOf(words, "pool_max_conns"),
    ssl: sslOf(words, host),
  });
}

function compact<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

function numberOf(words: ReadonlyMap<string, string>, name: string): number | undefined {
  const text = words.get(name);
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Error(`connection string: ${name} must be a number`);
}

function wordsOfUrl(text: string): Map<string, string> {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new Error(
      "connection string: not a URL; special characters in the password must be percent-encoded",
    );
  }
  const words = new Map<string, string>();
  const put = (name: string, value: string): void => {
    if (value !== "") words.set(name, decoded(value));
  };
  put("user", url.username);
  put("password", url.password);
  put("host", url.hostname.replace(/^\[|\]$/g, ""));
  put("port", url.port);
  put("database", url.pathname.replace(/^\//, ""));
  for (const [name, value] of url.searchParams) words.set(name, value);
  return words;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error(
      "connection string: a % in a URL must be followed by two hex digits; write % itself as %25",
    );
  }
}

function wordsOfDsn(text: string): Map<string, string> {
  const words = new Map<string, string>();
  const word = /\s*([\w.]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\']|\\.)(?:[^\s\\]|\\.)*)?)\s*/gy;
  let end = 0;
  for (const match of text.matchAll(word)) {
    words.set(match[1]!, (match[2] ?? match[3] ?? "").replace(/\\(.)/gs, "$1"));
    end = match.index + match[0].length;
  }
  if (end !== text.length || words.size === 0)
    throw new Error("connection string: neither postgres://... nor words like host=localhost user=postgres");
  return words;
}

function sslOf(words: ReadonlyMap<string, string>, host: string | undefined): PostgresConnection["ssl"] {
  const mode = words.get("sslmode") ?? "prefer";
  // A socket file has no TLS.
  if (mode === "disable" || host?.startsWith("/") === true) return false;
  const file = (name: string): string | undefined => {
    const path = words.get(name);
    return path === undefined ? undefined : readFileSync(path, "utf8");
  };
  const ca = file("sslrootcert");
  if ((mode === "prefer" || mode === "allow") && ca === undefined) return "prefer";
  const given = compact({ ca, cert: file("sslcert"), key: file("sslkey") });
  switch (mode) {
    case "verify-full":
      return { ...given, rejectUnauthorized: true };
    case "verify-ca":
      return { ...given, rejectUnauthorized: true, checkServerIdentity: () => undefined };
    case "prefer":
    case "allow":
    case "require":
      // With a root certificate, `require` means verify-ca, as in libpq.
      if (ca !== undefined)
        return { ...given, rejectUnauthorized: true, checkServerIdentity: () => undefined };
      return { ...given, rejectUnauthorized: false };
    default:
      throw new Error(`connection string: sslmode=${mode} is not known`);
  }
}
