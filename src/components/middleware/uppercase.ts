/** Makes bodies upper case: what tutorials and smoke tests of pipelines use. */
import type { Middleware } from "../../middleware/port.ts";
import { wholeBody } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "middleware.http.uppercase";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  direction: {
    kind: "string",
    default: "request",
    description: "Which bodies: request, response or both; any other text is request",
  },
} as const satisfies MetadataSchema;

export function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const direction = metadata.direction.toLowerCase();
  const responses = direction === "response" || direction === "both";
  const requests = direction !== "response";
  return Promise.resolve({
    async handle(request, next) {
      if (requests) request.setBody(upper(await request.body()));
      const reply = await next();
      return responses ? { ...reply, body: upper(await wholeBody(reply, request.maxBodyBytes)) } : reply;
    },
    close: () => Promise.resolve(),
  });
}

function upper(body: Uint8Array): Uint8Array {
  return Buffer.from(Buffer.from(body).toString("utf8").toUpperCase());
}
