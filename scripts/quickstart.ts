// `npm run quickstart`: two small apps, each with a sidecar, over NATS, from nothing; tells and verifies what happens,
// then stays up. With `-- --once` it ends after the round. Leaves nothing running that was not there before.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../mesh/index.ts";
import { findNats, hasCredentials, openHome, stopShared, type FoundNats } from "../mesh/server/index.ts";
import { componentsFolder, ensureDefaultComponents } from "../src/cli/default-resources.ts";
import type { MeshOptions } from "../src/config/options.ts";
import { freePorts } from "../src/cli/free-port.ts";
import { listSidecars } from "../src/cli/nats.ts";
import { checkFlags } from "../src/cli/sidecar-flags.ts";
import { say } from "./command.ts";
import { folder, QuickstartApp } from "./quickstart/app.ts";
import { playRound, untilReady, type Apps } from "./quickstart/round.ts";

const shownLines = 60;
const ids = ["orders", "pricing"] as const;
const titleWidth = 11;

/** How NATS is reached, as the sidecars will read it from the environment. */
const meshOptions = (): MeshOptions => checkFlags(["--app-id=quickstart"], process.env).mesh;

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((argument) => argument !== "--once");
  if (unknown !== undefined) {
    say(`quickstart does not know ${unknown}. It takes --once, which ends it after one round.`);
    return 255;
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  say("Two small apps, each with a sidecar beside it, meet over NATS. Nothing here is told an address.\n");
  const cleanUp = new CleanUp();
  let code: number;
  try {
    code = await tour(args.includes("--once"), cleanUp, stop.signal);
  } catch (error) {
    code = stop.signal.aborted ? 130 : 1;
    if (stop.signal.aborted) say("\nStopping before the round is complete ...");
    else cleanUp.explain(error);
  }
  const clean = await cleanUp.run();
  return clean ? code : Math.max(code, 1);
}

async function tour(once: boolean, cleanUp: CleanUp, signal: AbortSignal): Promise<number> {
  const beganMs = performance.now();
  let verified = 0;
  const tell = (title: string, text: string): void => {
    verified += 1;
    say(`  ok  ${title.padEnd(titleWidth)}${text}`);
  };
  const nats = await connectNats(cleanUp, signal);
  tell("NATS", nats.detail);
  await refuseTwins(nats);

  const startedMs = performance.now();
  say("      starting orders and pricing, each with a sidecar ...");
  const apps = await startApps(cleanUp);
  await Promise.race([untilReady(apps, signal), anyEnds(apps)]);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  tell(
    "Apps",
    `orders (Dapr SDK for JavaScript) and pricing (plain HTTP), each with a sidecar, after ${seconds} s`,
  );

  const order = await Promise.race([playRound(apps, tell, signal), anyEnds(apps)]);
  say(`\nAll ${verified} steps verified in ${((performance.now() - beganMs) / 1000).toFixed(1)} s.`);
  if (once) return 0;

  showUrls(apps, order.id);
  for (const app of [apps.orders, apps.pricing])
    app.onAppLine = (line) => say(`  ${app.id.padEnd(8)}| ${line}`);
  await Promise.race([anyEnds(apps), untilAborted(signal)]);
  say("\nStopping the apps and their sidecars ...");
  return 0;
}

async function connectNats(cleanUp: CleanUp, signal: AbortSignal): Promise<FoundNats> {
  const nats = await findNats({
    env: process.env,
    clock: systemClock,
    signal,
    progress: (line) => say(`      ${line}`),
    credentialsGiven: hasCredentials(meshOptions()),
  });
  if (nats.way === "started") cleanUp.ownServer = nats;
  return nats;
}

/** Apps of the same names would share the calls and events with ours, and nobody could tell who answers. */
async function refuseTwins(nats: FoundNats): Promise<void> {
  const twin = (await sidecarsOn(nats)).find(
    ({ namespace, app }) => namespace === "default" && ids.some((id) => id === app),
  );
  if (twin === undefined) return;
  throw new Error(
    `an app named "${twin.app}" already runs on this NATS (sidecar process ${twin.pid} on ${twin.host}). ` +
      "Stop it first; is another quickstart running?",
  );
}

/** Live sidecars; the entry of one that was killed stays for a while. */
async function sidecarsOn(nats: FoundNats): ReturnType<typeof listSidecars> {
  const sidecars = await listSidecars({ ...nats, way: "given" }, meshOptions(), systemClock);
  return sidecars.filter(({ host, pid }) => host !== hostname() || isAlive(pid));
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

async function startApps(cleanUp: CleanUp): Promise<Apps> {
  const [ordersApp = 0, ordersHttp = 0, pricingApp = 0, pricingHttp = 0] = await freePorts(4);
  const home = openHome({ env: process.env }).path;
  ensureDefaultComponents(home);
  const start = (options: ConstructorParameters<typeof QuickstartApp>[0]): QuickstartApp => {
    const app = new QuickstartApp(options);
    cleanUp.apps.push(app);
    return app;
  };
  return {
    orders: start({ id: "orders", file: "orders.js", appPort: ordersApp, httpPort: ordersHttp }),
    pricing: start({
      id: "pricing",
      file: "pricing.js",
      appPort: pricingApp,
      httpPort: pricingHttp,
      flags: [`--resources-path=${componentsFolder(home)}`, `--resources-path=${folder}/resources`],
    }),
  };
}

/** Rejects when an app with its sidecar ends by itself. */
async function anyEnds({ orders, pricing }: Apps): Promise<never> {
  const ended = await Promise.race([orders, pricing].map(async (app) => ({ app, code: await app.ended })));
  throw new Error(`${ended.app.id} with its sidecar ended by itself, exit code ${ended.code}`);
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function showUrls({ orders, pricing }: Apps, orderId: string): void {
  say(`
Try it. Both apps answer by their names through either sidecar (ports ${orders.httpPort} and ${pricing.httpPort}):

  curl -X POST ${orders.api}/invoke/orders/method/orders \\
       -H 'content-type: application/json' -d '{"item": "pear", "quantity": 5}'
  curl '${pricing.api}/invoke/orders/method/orders?id=${orderId}'
  curl '${orders.api}/invoke/pricing/method/sale?order=${orderId}'
  curl ${orders.api}/state/statestore/${orderId}
  curl ${pricing.api}/metadata
  bin/weft status

The apps are examples/quickstart/orders.js and pricing.js. Press Ctrl-C to stop everything.
`);
}

/** What has been started, and how it ends: apps with their sidecars, then the NATS server if it was ours. */
class CleanUp {
  readonly apps: QuickstartApp[] = [];
  ownServer: FoundNats | undefined;

  /** Resolves with false when something did not end cleanly. */
  async run(): Promise<boolean> {
    const clean = await Promise.all(this.apps.map((app) => app.stop()));
    try {
      if (this.ownServer !== undefined) await this.#stopServer(this.ownServer);
    } catch (error) {
      say(`quickstart: the NATS server could not be stopped: ${String(error)}`);
      return false;
    }
    return clean.every(Boolean);
  }

  /** Tells what failed, with the logs of everything that had a part in it. */
  explain(error: unknown): void {
    say(`\nquickstart: ${error instanceof Error ? error.message : String(error)}`);
    for (const { id, lines } of this.apps) {
      say(`\n--- ${id} and its sidecar, last lines\n${lines.slice(-shownLines).join("\n")}`);
    }
  }

  async #stopServer(nats: FoundNats): Promise<void> {
    const others = await Promise.race([sidecarsOn(nats).catch(() => []), sleep(15_000, [])]);
    if (others.length > 0) {
      const named = others.map(({ app, pid }) => `${app} (process ${pid})`).join(", ");
      say(`The NATS server stays, since others use it by now: ${named}. "weft down" stops it.`);
      return;
    }
    say(`${(await stopShared({ env: process.env, clock: systemClock })).detail}.`);
  }
}

process.exit(await main(process.argv.slice(2)));
