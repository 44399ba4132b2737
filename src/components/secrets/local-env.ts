/**
 * Environment variables of the sidecar as secrets: for development, and for what a platform puts into the environment.
 * Dapr's own variables are never shown.
 */
import type { Secret, SecretStore } from "../../blocks/secrets/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "secretstores.local.env";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  prefix: {
    kind: "string",
    description: "Only variables that start so are secrets; their names in this store are without it.",
  },
} as const satisfies MetadataSchema;

export async function open(context: ComponentContext<typeof metadataSchema>): Promise<SecretStore> {
  const { env, log } = context;
  const prefix = context.metadata.prefix ?? "";
  return {
    async get(name): Promise<Secret> {
      const variable = prefix + name;
      if (isShown(variable)) return { [name]: valueOf(env, variable) };
      log.warn(`the environment variable ${variable} is never given out; the secret ${name} is empty`);
      return { [name]: "" };
    },
    async getAll() {
      const names = Object.keys(env).filter((variable) => variable.startsWith(prefix) && isShown(variable));
      return Object.fromEntries(
        names.map((variable) => {
          const name = variable.slice(prefix.length);
          return [name, { [name]: valueOf(env, variable) }];
        }),
      );
    },
    async close() {},
  };
}

function isShown(variable: string): boolean {
  const upper = variable.toUpperCase();
  return upper !== "APP_API_TOKEN" && !upper.startsWith("DAPR_");
}

/** What every object inherits is no variable. */
function valueOf(env: Readonly<Record<string, string | undefined>>, variable: string): string {
  return (Object.hasOwn(env, variable) ? env[variable] : undefined) ?? "";
}
