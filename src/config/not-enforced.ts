/** What a user has written and this build does not act upon yet. Said at the start: nobody may rely on it unawares. */
import type { ConfigurationResource } from "./kinds/configuration.ts";
import type { LoadedResources } from "./resources.ts";

/** Sentences to log as warnings. */
export function notEnforced(configuration: ConfigurationResource, resources: LoadedResources): string[] {
  const { nameResolution } = configuration;
  const fields: readonly (readonly [string, boolean])[] = [
    ["spec.nameResolution", nameResolution !== undefined],
  ];
  const written = fields.filter(([, given]) => given);
  return [
    ...written.map(([field]) => `Configuration: ${field} is read but not enforced by this version of Weft`),
    ...resources.others.map(
      ({ kind, name, origin }) =>
        `${origin.file}:${origin.line}: ${kind} ${name} is read but has no effect in this version of Weft`,
    ),
  ];
}
