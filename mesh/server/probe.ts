/**
 * Asks what listens on a loopback port. A NATS server speaks first: one INFO line with JSON, which says all
 * that is needed here without logging in.
 */
import { connect } from "node:net";
import type { Clock } from "../clock.ts";
import { isAtLeast, minimumVersion } from "./version.ts";

const defaultTimeoutMs = 500;
const maxInfoBytes = 64 * 1024;

/** The parts of a server's INFO line that matter here. `serverId` is new at every start of the server. */
export type ServerInfo = {
  readonly serverId: string;
  readonly serverName: string;
  readonly version: string;
  readonly jetstream: boolean;
  readonly authRequired: boolean;
  readonly tlsRequired: boolean;
};

/**
 * `closed`: nobody listens. `foreign`: something else than NATS, or something that says nothing; `detail` in
 * words.
 */
export type ProbeResult =
  | { readonly kind: "nats"; readonly info: ServerInfo }
  | { readonly kind: "closed" }
  | { readonly kind: "foreign"; readonly detail: string };

/**
 * Connects to 127.0.0.1:`port` and reads the INFO line; at most `timeoutMs` (500) and 64 KiB. Rejects only when
 * aborted.
 */
export function probe(
  port: number,
  clock: Clock,
  signal?: AbortSignal,
  timeoutMs = defaultTimeoutMs,
): Promise<ProbeResult> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const socket = connect({ host: "127.0.0.1", port });
    let received = Buffer.alloc(0);
    const stop = (): void => {
      timer.cancel();
      signal?.removeEventListener("abort", onAbort);
      socket.destroy();
    };
    const finish = (result: ProbeResult): void => {
      stop();
      resolve(result);
    };
    const onAbort = (): void => {
      stop();
      reject(signal?.reason);
    };
    const timer = clock.setTimeout(() => finish(foreign(`nothing was said in ${timeoutMs} ms`)), timeoutMs);
    signal?.addEventListener("abort", onAbort, { once: true });
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf("\n");
      if (end >= 0) finish(readInfo(received.toString("utf8", 0, end)));
      else if (received.length > maxInfoBytes) finish(foreign("its first line is too long"));
    });
    socket.on("error", (error) => {
      const refused = "code" in error && error.code === "ECONNREFUSED";
      finish(refused ? { kind: "closed" } : foreign(error.message));
    });
    socket.on("end", () => finish(foreign("it closed the connection")));
  });
}

/** Whether the user gave anything to log in with. */
export function hasCredentials(access: {
  readonly credsFile?: string | undefined;
  readonly nkeyFile?: string | undefined;
  readonly user?: string | undefined;
}): boolean {
  return access.credsFile !== undefined || access.nkeyFile !== undefined || access.user !== undefined;
}

/** Why a server cannot be the substrate, in words that name the fix; undefined when it can. */
export function whyUnusable(info: ServerInfo, credentialsGiven: boolean): string | undefined {
  if (!isAtLeast(info.version, minimumVersion))
    return `its version ${info.version} is older than ${minimumVersion}`;
  if (!info.jetstream) return "it has no JetStream (start it with -js)";
  if (info.authRequired && !credentialsGiven) {
    return "it asks for credentials (give them with --nats-creds, --nats-nkey, or --nats-user and --nats-password)";
  }
  if (info.tlsRequired && !credentialsGiven) return "it asks for TLS (give --nats-url with --nats-tls-*)";
  return undefined;
}

function foreign(detail: string): ProbeResult {
  return { kind: "foreign", detail };
}

function readInfo(line: string): ProbeResult {
  if (!line.startsWith("INFO ")) return foreign("it is not a NATS server");
  try {
    const value: unknown = JSON.parse(line.slice(5));
    if (typeof value !== "object" || value === null) return foreign("its INFO line is not an object");
    const fields = new Map<string, unknown>(Object.entries(value));
    const text = (name: string): string => {
      const field = fields.get(name);
      return typeof field === "string" ? field : "";
    };
    const info: ServerInfo = {
      serverId: text("server_id"),
      serverName: text("server_name"),
      version: text("version"),
      jetstream: fields.get("jetstream") === true,
      authRequired: fields.get("auth_required") === true,
      tlsRequired: fields.get("tls_required") === true,
    };
    return { kind: "nats", info };
  } catch {
    return foreign("its INFO line is not JSON");
  }
}
