/**
 * The HTTP routes of publishing.
 */
import { noContent } from "../../api/http.ts";
import type { HttpCall, HttpRoute } from "../../api/http.ts";
import type { BulkPublisher } from "./bulk-publish.ts";
import { bulkFailedReply, decodeBulk } from "./http-body.ts";
import type { Publisher } from "./publish.ts";
import { traceOf } from "./trace.ts";

const verbs = ["POST", "PUT"];

export function httpRoutes(publisher: Publisher, bulk: BulkPublisher): HttpRoute[] {
  const publishBulk: HttpRoute["handle"] = async (call) => {
    const [pubsub, topic] = call.params as readonly [string, string];
    const metadata = call.metadata();
    const target = publisher.resolve(pubsub, topic, metadata);
    const entries = decodeBulk(target, bulk.appId, await call.body());
    bulk.checkIds(target, entries);
    const request = { entries, metadata, trace: traceOf(call.span), span: call.span };
    const failed = await bulk.publish(target, request, call.signal, "http");
    return failed === undefined ? noContent : bulkFailedReply(target, failed);
  };
  return [
    {
      verbs,
      path: "/v1.0/publish/bulk/{pubsub}/{topic...}",
      name: "BulkPublishEvent",
      group: "publish",
      handle: publishBulk,
    },
    {
      verbs,
      path: "/v1.0-alpha1/publish/bulk/{pubsub}/{topic...}",
      name: "BulkPublishEvent",
      group: "publish",
      handle: publishBulk,
    },
    {
      verbs,
      path: "/v1.0/publish/{pubsub}/{topic...}",
      name: "PublishEvent",
      group: "publish",
      async handle(call) {
        const [pubsub, topic] = call.params as readonly [string, string];
        const metadata = call.metadata();
        const target = publisher.resolve(pubsub, topic, metadata);
        const data = await call.body();
        const event = {
          data,
          contentType: header(call, "content-type") ?? "",
          metadata,
          trace: traceOf(call.span),
        };
        await publisher.publish(target, event, call.signal, "http");
        return noContent;
      },
    },
  ];
}

function header(call: HttpCall, name: string): string | undefined {
  const value = call.headers[name];
  return typeof value === "string" || value === undefined ? value : value[0];
}
