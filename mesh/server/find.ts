/**
 * The three ways to NATS, in order: given by the user, found on the usual port of this machine, started by
 * Weft and shared by all its sidecars. Says in one line which of them happened.
 */
import type { Clock } from "../clock.ts";
import { FindNatsError } from "./errors.ts";
import { locateHome } from "./home.ts";
import { probe, whyUnusable } from "./probe.ts";
import { ensureShared, findShared, type SharedResult } from "./shared.ts";
import type { SharedServer } from "./state.ts";

const natsPort = 4222;
/** A server on the usual port may be busy for this long, ms: a second one beside it would split its users. */
const patienceMs = 4_000;
const maxUrls = 64;

export type FindOptions = {
  /**
   * Servers of the user, each possibly a comma list; goes before WEFT_NATS_URL. Empty means not given. Without
   * credentials, which the client does not take from a URL.
   */
  readonly urls?: readonly string[] | undefined;
  /** Weft's folder; goes before WEFT_HOME. */
  readonly home?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** nats-server program; goes before WEFT_NATS_SERVER. */
  readonly binary?: string | undefined;
  /** Told about steps that take time; one line at a time. Must not throw. */
  readonly progress: (line: string) => void;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** A server that asks for credentials or TLS can be used. */
  readonly credentialsGiven?: boolean | undefined;
  /**
   * The port that is looked at and that a started server gets when it is free; goes before WEFT_NATS_PORT.
   * 4222; tests use another.
   */
  readonly defaultPort?: number | undefined;
};

export type EnsureResult = {
  readonly urls: string[];
  /** The server is another process than the one known before, whoever restarted it. */
  readonly restarted: boolean;
  /** `urls` differ from before: its port was taken meanwhile, so clients must be pointed to the new one. */
  readonly moved: boolean;
};

export type FoundNats = {
  readonly urls: string[];
  readonly way: "given" | "found" | "started" | "joined";
  /** One readable line for the log. */
  readonly detail: string;
  /**
   * Call when the server stays away. A shared server is started again with its data by exactly one of all
   * callers and processes; for a given or found server nothing is done, since it is not ours. Safe to call at
   * any time.
   */
  ensure(signal?: AbortSignal): Promise<EnsureResult>;
};

/**
 * Finds or starts NATS. Throws FindNatsError with a readable reason and fix, or the signal's reason when
 * aborted.
 */
export async function findNats(options: FindOptions): Promise<FoundNats> {
  const { env, clock, signal } = options;
  const port = options.defaultPort ?? readPort(env["WEFT_NATS_PORT"]);
  const urls = readUrls(options.urls ?? [], env["WEFT_NATS_URL"]);
  if (urls.length > 0) return fixed("given", urls, `using ${urls.join(", ")} as given`);

  // Our own server first, also on another port: all sidecars of a user must meet on one server.
  const home = locateHome(options);
  const running = await findShared(home, clock, signal);
  if (running !== undefined) return shared({ server: running, startedHere: false }, "", port, options);

  const answer = await probe(port, clock, signal, patienceMs);
  const where = `127.0.0.1:${port}`;
  let passed = "";
  if (answer.kind === "nats" && answer.info.serverName !== home.serverName) {
    const problem = whyUnusable(answer.info, options.credentialsGiven ?? false);
    if (problem === undefined) {
      const { version } = answer.info;
      return fixed("found", [`nats://${where}`], `using the nats-server ${version} found on ${where}`);
    }
    passed = `; the nats-server on ${where} was not used: ${problem}`;
  } else if (answer.kind === "foreign") {
    passed = `; what listens on ${where} was not used: ${answer.detail}`;
  }
  return shared(await ensureShared({ ...options, usualPort: port }), passed, port, options);
}

function fixed(way: "given" | "found", urls: string[], detail: string): FoundNats {
  return { urls, way, detail, ensure: () => Promise.resolve({ urls, restarted: false, moved: false }) };
}

function shared(result: SharedResult, note: string, usualPort: number, options: FindOptions): FoundNats {
  let known = result.server;
  const way = result.startedHere ? "started" : "joined";
  const { version, port, pid, dataDir } = known;
  return {
    urls: [known.url],
    way,
    detail:
      `${way} the shared nats-server ${version} on 127.0.0.1:${port} ` +
      `(process ${pid}, data in ${dataDir}; "weft down" stops it)${note}`,
    async ensure(signal = options.signal) {
      const { server } = await ensureShared({ ...options, usualPort, signal });
      const change = compare(known, server);
      known = server;
      return { urls: [server.url], ...change };
    },
  };
}

function compare(before: SharedServer, now: SharedServer): { restarted: boolean; moved: boolean } {
  return { restarted: before.serverId !== now.serverId, moved: before.url !== now.url };
}

function readPort(text: string | undefined): number {
  if (text === undefined || text === "") return natsPort;
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new FindNatsError(`WEFT_NATS_PORT is "${text}"; write a port number, such as ${natsPort}.`);
}

function readUrls(given: readonly string[], fromEnv: string | undefined): string[] {
  const split = (text: string): string[] =>
    text
      .split(",")
      .map((url) => url.trim())
      .filter((url) => url !== "");
  const urls = given.flatMap(split);
  const all = urls.length > 0 ? urls : split(fromEnv ?? "");
  if (all.length > maxUrls)
    throw new FindNatsError(`${all.length} NATS URLs were given, at most ${maxUrls} are taken.`);
  for (const url of all) {
    if (!isNatsUrl(url)) {
      throw new FindNatsError(
        `"${hidePassword(url)}" is not a NATS URL. Write --nats-url / WEFT_NATS_URL as nats://host:4222 or ` +
          "tls://host:4222, several with commas between.",
      );
    }
    // The client takes no credentials from a URL; it would be refused by the server without a word about why.
    if (hidePassword(url) !== url) {
      throw new FindNatsError(
        `"${hidePassword(url)}" holds credentials, which are not read from a URL: put them in ` +
          "--nats-user / --nats-password (WEFT_NATS_USER / WEFT_NATS_PASSWORD).",
      );
    }
  }
  return all;
}

/** `host`, `host:port`, or one of these after nats:// or tls://. */
function isNatsUrl(url: string): boolean {
  const full = url.includes("://") ? url : `nats://${url}`;
  return /^(nats|tls):\/\//i.test(full) && URL.canParse(full) && new URL(full).hostname !== "";
}

/** A NATS URL for a line that anybody may read: without the token or the password before the last @. */
export function hidePassword(url: string): string {
  return url.replace(/^([a-z]+:\/\/)?.*@/i, "$1***@");
}
