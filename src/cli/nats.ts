/**
 * Which NATS the sidecars of this user work with, looked at without starting or changing anything, and who is on it.
 */
import { natsAccess } from "../config/nats-access.ts";
import { joinMesh, type Clock, type JoinOptions, type Mesh, type PresenceEntry } from "../../mesh/index.ts";
import {
  hasCredentials,
  hidePassword,
  locateHome,
  probe,
  sharedStatus,
  whyUnusable,
} from "../../mesh/server/index.ts";
import type { MeshOptions } from "../config/options.ts";
import { textOf } from "./failure.ts";

/**
 * - `given`: named by the user; - `shared`: the one that Weft started for this user; - `found`: on the usual port;
 * - `none`: the next sidecar will start one.
 */
export type NatsSighting = {
  readonly way: "given" | "shared" | "found" | "none";
  readonly urls: readonly string[];
  readonly version?: string;
  /** Of the shared server only. */
  readonly pid?: number;
  readonly port?: number;
  readonly dataDir?: string;
  /** One readable line. */
  readonly detail: string;
};

const connectMs = 5_000;

/** Looks in the order in which a sidecar looks. */
export async function lookForNats(
  mesh: MeshOptions,
  env: NodeJS.ProcessEnv,
  clock: Clock,
): Promise<NatsSighting> {
  if (mesh.natsUrls.length > 0) {
    const shown = mesh.natsUrls.map(hidePassword).join(", ");
    return { way: "given", urls: mesh.natsUrls, detail: `${shown}, as given` };
  }
  const shared = await sharedStatus({ home: mesh.home, env, clock });
  if (shared.running) {
    const { server, answers, detail } = shared;
    const known =
      server === undefined ? {} : { version: server.version, port: server.port, dataDir: server.dataDir };
    const pid = shared.pid === undefined ? {} : { pid: shared.pid };
    return { way: "shared", urls: answers && server ? [server.url] : [], ...known, ...pid, detail };
  }
  const port = mesh.natsPort;
  const answer = await probe(port, clock);
  const home = locateHome({ home: mesh.home, env });
  if (answer.kind !== "nats" || answer.info.serverName === home.serverName) return none("");
  const problem = whyUnusable(answer.info, hasCredentials(mesh));
  const { version } = answer.info;
  if (problem !== undefined) return none(`; the nats-server on 127.0.0.1:${port} is not used: ${problem}`);
  const detail = `nats-server ${version} found on 127.0.0.1:${port}`;
  return { way: "found", urls: [`nats://127.0.0.1:${port}`], version, port, detail };
}

function none(note: string): NatsSighting {
  return { way: "none", urls: [], detail: `no NATS server is running; the next sidecar starts one${note}` };
}

/** The live sidecars, sorted by namespace and app. Rejects with a readable reason when the server cannot be asked. */
export async function listSidecars(
  sighting: NatsSighting,
  mesh: MeshOptions,
  clock: Clock,
): Promise<readonly PresenceEntry[]> {
  if (sighting.urls.length === 0) return [];
  return withMesh(sighting, mesh, clock, async (joined) => {
    const entries = await joined.presence();
    return entries.toSorted((a, b) => order(a).localeCompare(order(b)));
  });
}

/** Does the work as a participant. Rejects with a readable reason when the server cannot be reached in time. */
export async function withMesh<T>(
  sighting: NatsSighting,
  mesh: MeshOptions,
  clock: Clock,
  work: (mesh: Mesh) => Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const timer = clock.setTimeout(
    () => late.abort(new Error(`no connection within ${connectMs / 1000} s`)),
    connectMs,
  );
  const joined = joinMesh({ ...joinOptions(mesh), natsUrls: sighting.urls, clock });
  try {
    await joined.ready(late.signal).catch((error: unknown) => {
      const { connected, way } = joined.status();
      throw connected ? error : new Error(`${textOf(error)}: ${way}`);
    });
    return await work(joined);
  } finally {
    timer.cancel();
    await joined.close();
  }
}

function order({ namespace, app, instance }: PresenceEntry): string {
  return `${namespace}\0${app}\0${instance}`;
}

function joinOptions(mesh: MeshOptions): JoinOptions {
  return { namespace: "default", app: "weft-cli", root: mesh.root, access: natsAccess(mesh) };
}
