/**
 * What `weft run` uses when no resources are given: a state store and a message bus on NATS, as files in
 * `components/` of Weft's home, where the user can see and change them.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const files: Readonly<Record<string, string>> = {
  "statestore.yaml": component("statestore", "state.nats"),
  "pubsub.yaml": component("pubsub", "pubsub.nats"),
};

function component(name: string, type: string): string {
  return `# Made by \`weft run\`; yours to change. Weft writes this folder only when it holds no resources.
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: ${name}
spec:
  type: ${type}
  version: v1
  metadata: []
`;
}

/** The folder of the default components in Weft's home. */
export function componentsFolder(home: string): string {
  return join(home, "components");
}

/**
 * Fills the folder of the default components when it holds no resource file, and returns it. In one step, because
 * another `weft run` may be reading it at this moment. `home` exists. Throws the system's error.
 */
export function ensureDefaultComponents(home: string): string {
  const folder = componentsFolder(home);
  if (holdsResources(folder)) return folder;
  const fresh = mkdtempSync(join(home, "components-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(fresh, name), text);
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    // Another one was first, or files of another kind are there: then into what is there.
    if (!existsSync(folder)) throw error;
    fill(folder);
  }
  return folder;
}

/** The Configuration that `weft run` uses when none is given and this file is there. */
export function defaultConfigFile(home: string): string | undefined {
  const file = join(home, "config.yaml");
  return existsSync(file) ? file : undefined;
}

function holdsResources(folder: string): boolean {
  return existsSync(folder) && readdirSync(folder).some((name) => /\.ya?ml$/.test(name));
}

function fill(folder: string): void {
  if (holdsResources(folder)) return;
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}
