// Texts of resources for tests of middlewares, and sidecars whose pipelines may refuse the kit's own probes.
import { startSidecar } from "../../kit/index.ts";
import type { Sidecar, SidecarOptions } from "../../kit/index.ts";

/** A middleware component, by the last part of its type, with metadata as given. */
export function middleware(
  name: string,
  kind: string,
  metadata: Readonly<Record<string, string>> = {},
): string {
  const items = Object.entries(metadata).map(
    ([key, value]) => `  - name: ${key}\n    value: ${JSON.stringify(value)}\n`,
  );
  const list = items.length === 0 ? "" : `  metadata:\n${items.join("")}`;
  return `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: ${name}
spec:
  type: middleware.http.${kind}
  version: v1
${list}---
`;
}

/** Handlers as `name kind` or `name kind version`. */
export function pipelines(lists: {
  readonly http?: readonly string[];
  readonly app?: readonly string[];
}): string {
  const section = (key: string, handlers: readonly string[] = []): string => {
    const items = handlers.map((handler) => {
      const [name, kind, version] = handler.split(" ");
      const last = version === undefined ? "" : `, version: ${version}`;
      return `    - {name: ${name}, type: middleware.http.${kind}${last}}\n`;
    });
    return items.length === 0 ? "" : `  ${key}:\n    handlers:\n${items.join("")}`;
  };
  const spec = section("httpPipeline", lists.http) + section("appHttpPipeline", lists.app);
  return `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: pipelines\nspec:\n${spec}`;
}

/** Ready by its log: healthz stands behind the pipeline. */
export async function startPiped(options: SidecarOptions): Promise<Sidecar> {
  const sidecar = await startSidecar({ ...options, wait: "none" });
  try {
    await sidecar.logged(/dapr initialized/, 30_000);
    return sidecar;
  } catch (error) {
    await sidecar[Symbol.asyncDispose]();
    throw error;
  }
}
