/**
 * Reads the `--config` files. Use: `loadConfiguration(options.resources.configFiles, configurationEnv(options, env))`.
 */
import { readFile } from "node:fs/promises";
import { expandEnv } from "../lib/expand-env.ts";
import type { Environment } from "./flags.ts";
import { type ConfigurationResource, DEFAULT_CONFIGURATION } from "./kinds/configuration.ts";
import type { ConfigurationSource } from "./kinds/parse-configuration.ts";
import { withOtelEnv } from "./otel-env.ts";
import { reasonOf } from "./resources.ts";
import { SettingError } from "./setting-error.ts";

/**
 * Merges the files in their order over the defaults, with `$NAME` replaced from `env` and OTEL_* applied. Without
 * files the YAML reader is not loaded. Read `again`, while a sidecar runs, a file without `spec` is one that is being
 * written: it is refused, so that it does not open what the Configuration shuts.
 * @throws {SettingError} for a file that is missing or cannot be used, naming its line.
 */
export async function loadConfiguration(
  files: readonly string[],
  env: Environment,
  when: "first" | "again" = "first",
): Promise<ConfigurationResource> {
  const sources: ConfigurationSource[] = [];
  for (const file of files) sources.push({ file, text: expandEnv(await readText(file), env) });
  const configuration = sources.length === 0 ? DEFAULT_CONFIGURATION : await parse(sources, when);
  return Object.freeze({ ...configuration, tracing: withOtelEnv(configuration.tracing, env) });
}

async function parse(
  sources: readonly ConfigurationSource[],
  when: "first" | "again",
): Promise<ConfigurationResource> {
  const { parseConfiguration } = await import("./kinds/parse-configuration.ts");
  return parseConfiguration(sources, when === "again");
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const fix = "correct --config";
    throw new SettingError(`error loading configuration: stat ${file}: ${reasonOf(error)} (${fix})`);
  }
}
