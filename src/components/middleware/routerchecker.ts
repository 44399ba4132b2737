/** Refuses requests whose path and query a rule does not match. */
import type { Middleware } from "../../middleware/port.ts";
import { textReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { readPattern } from "./path-filter.ts";

export const type = "middleware.http.routerchecker";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  rule: {
    kind: "string",
    required: true,
    description: "Regular expression for path and query, e.g. ^/v1.0/",
  },
} as const satisfies MetadataSchema;

export function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const rule = readPattern("rule", metadata.rule);
  return Promise.resolve({
    handle: ({ path, query }, next) =>
      rule.test(query === "" ? path : `${path}?${query}`)
        ? next()
        : Promise.resolve(textReply(400, "invalid router")),
    close: () => Promise.resolve(),
  });
}
