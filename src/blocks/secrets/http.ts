/** Routes of the secrets API over HTTP: decode, call secrets.ts, encode. */
import { type HttpRoute, jsonReply, noContent } from "../../api/http.ts";
import { goJson } from "../../lib/go-json.ts";
import type { Secrets } from "./secrets.ts";

/** All HTTP routes of the block. A secret called `bulk` is out of reach here. */
export function secretHttpRoutes(secrets: Secrets): HttpRoute[] {
  return [
    {
      verbs: ["GET"],
      path: "/v1.0/secrets/{store}/bulk",
      name: "GetBulkSecret",
      group: "secrets",
      async handle(call) {
        const all = await secrets.getAll(call.params[0]!, call.metadata(), call.signal);
        return jsonReply(`${goJson(all)}\n`);
      },
    },
    {
      verbs: ["GET"],
      path: "/v1.0/secrets/{store}/{key}",
      name: "GetSecret",
      group: "secrets",
      async handle(call) {
        const [store, name] = call.params;
        const secret = await secrets.get(store!, name!, call.metadata(), call.signal);
        return secret === undefined ? noContent : jsonReply(`${goJson(secret)}\n`);
      },
    },
  ];
}
