/**
 * The lines that resource files and Configurations give when they are loaded, without a process: as the sidecar logs
 * them, in the same steps and order.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { joinMesh } from "../../../mesh/index.ts";
import { openApp } from "../../../src/app/open.ts";
import type { BlockHost } from "../../../src/blocks/block.ts";
import { checkComponent, makeBlocks } from "../../../src/blocks/index.ts";
import { openComponents } from "../../../src/components/open.ts";
import { HttpEndpoints } from "../../../src/config/http-endpoints.ts";
import { parseFlags } from "../../../src/config/flags.ts";
import { loadConfiguration } from "../../../src/config/load-configuration.ts";
import { resolveOptions } from "../../../src/config/options.ts";
import { formatProblem, loadResources } from "../../../src/config/resources.ts";
import { wantedComponents } from "../../../src/foundation.ts";
import { RunningPolicies } from "../../../src/resiliency/running.ts";
import { noMetrics } from "../../../src/telemetry/metrics.ts";
import { silentLog } from "../../contract/silent-log.ts";
import { tempDir } from "../../kit/index.ts";

export type Files = Readonly<Record<string, string>>;

/** Everything that is said about the files; paths are without the folder. The last line is what ends the start. */
export async function linesOf(resources: Files, config: Files = {}): Promise<string[]> {
  await using folder = tempDir("wrong-files");
  for (const [name, text] of Object.entries(resources)) write(folder.join("resources", name), text);
  for (const [name, text] of Object.entries(config)) write(folder.join(name), text);
  mkdirSync(folder.join("resources"), { recursive: true });
  const lines: string[] = [];
  try {
    const paths = Object.keys(config).map((name) => `--config=${folder.join(name)}`);
    await load([`--resources-path=${folder.join("resources")}`, ...paths], lines);
  } catch (error) {
    lines.push(error instanceof Error ? error.message : String(error));
  }
  const inside = [`${folder.join("resources")}/`, `${folder.path}/`];
  return lines.map((line) => inside.reduce((text, path) => text.replaceAll(path, ""), line));
}

async function load(flags: readonly string[], lines: string[]): Promise<void> {
  const env = { WRONG_FILES: "x" };
  const outcome = parseFlags(["--app-id=shop", ...flags], env, { version: "", commit: "" });
  if (outcome.kind !== "run") throw new Error(`the flags of the test are wrong: ${JSON.stringify(outcome)}`);
  const options = resolveOptions(outcome.flags, env);
  const say = (text: string): void => void lines.push(text);
  const log = { ...silentLog, warn: say, scope: () => log };
  const configuration = await loadConfiguration(options.resources.configFiles, env);
  const loaded = await loadResources(options.resources.directories, { appId: "shop", env });
  for (const problem of [...configuration.problems, ...loaded.problems]) say(formatProblem(problem));

  const mesh = joinMesh({ namespace: "default", app: "shop", natsUrls: ["nats://127.0.0.1:1"] });
  const shared = { options, mesh, clock: mesh.clock, log, metrics: noMetrics, env };
  try {
    const components = await openComponents({
      ...shared,
      wanted: wantedComponents(configuration, loaded),
      check: checkComponent,
    });
    try {
      const surroundings = { env, namespace: "default", ...components.secrets };
      const endpoints = new HttpEndpoints(surroundings, say);
      await endpoints.set(loaded.httpEndpoints);
      const random = (): number => 0.5;
      const { clock } = mesh;
      const { resiliencies, subscriptions } = loaded;
      const policies = new RunningPolicies({
        clock,
        random,
        log: { ...log, error: say },
        metrics: noMetrics,
      });
      await policies.set(resiliencies);
      const pipelines = { app: undefined };
      const app = openApp(options, clock, log, noMetrics, pipelines);
      const host: BlockHost = {
        ...shared,
        random,
        app,
        configuration,
        components,
        subscriptions,
        httpEndpoints: endpoints.all,
        policies,
        pipelines,
        tracing: { tracer: undefined },
      };
      await makeBlocks(host);
      await app.close();
    } finally {
      await components.close();
    }
  } finally {
    await mesh.close();
  }
}

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}
