/** Routes of the configuration API over HTTP: decode, call configuration.ts, encode. */
import { httpErrorBody } from "../../api/errors.ts";
import { type HttpCall, type HttpReply, type HttpRoute, jsonReply, noContent } from "../../api/http.ts";
import { compareUtf8, goJson } from "../../lib/go-json.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Configurations } from "./configuration.ts";
import { noApp, unknownIdText } from "./errors.ts";
import type { TellApp } from "./http-app.ts";
import { itemsText } from "./json.ts";

/** Both versions of the path do the same. */
const versions = ["v1.0", "v1.0-alpha1"] as const;

/** All HTTP routes of the block. `tell` is undefined without an app. */
export function configurationHttpRoutes(
  configurations: Configurations,
  tell: TellApp | undefined,
): HttpRoute[] {
  return versions.flatMap((version) => {
    const base = `/${version}/configuration/{store}`;
    const common = { verbs: ["GET"], group: "configuration" };
    return [
      { ...common, path: base, name: "GetConfiguration", handle: (call) => get(configurations, call) },
      {
        ...common,
        path: `${base}/subscribe`,
        name: "SubscribeConfiguration",
        handle: (call) => subscribe(configurations, tell, call),
      },
      {
        ...common,
        path: `${base}/{id}/unsubscribe`,
        name: "UnsubscribeConfiguration",
        handle: (call) => unsubscribe(configurations, call),
      },
    ] satisfies HttpRoute[];
  });
}

async function get(configurations: Configurations, call: HttpCall): Promise<HttpReply> {
  const keys = call.queryValues("key");
  const items = await configurations.get(call.params[0]!, keys, call.metadata(), call.signal);
  if (items.size === 0) return noContent;
  return jsonReply(`${itemsText([...items].sort(([a], [b]) => compareUtf8(a, b)))}\n`);
}

async function subscribe(
  configurations: Configurations,
  tell: TellApp | undefined,
  call: HttpCall,
): Promise<HttpReply> {
  const store = call.params[0]!;
  configurations.check(store);
  if (tell === undefined) return jsonReply(`${httpErrorBody(noApp())}\n`, 500);
  const keys = call.queryValues("key");
  const watch = await configurations.subscribe(store, keys, call.metadata(), call.signal);
  void tell(store, watch);
  return jsonReply(`${goJson({ id: watch.id })}\n`);
}

async function unsubscribe(configurations: Configurations, call: HttpCall): Promise<HttpReply> {
  const [store, id] = call.params;
  configurations.check(store!);
  const problem = await endOf(configurations, id!);
  if (problem === undefined) return jsonReply('{"ok":true}\n');
  return jsonReply(`${goJson({ message: problem })}\n`, 500);
}

/** Text of why the subscription could not be ended; undefined when it was. */
async function endOf(configurations: Configurations, id: string): Promise<string | undefined> {
  try {
    return (await configurations.unsubscribe(id)) ? undefined : unknownIdText(id, "http");
  } catch (error) {
    return `failed to unsubscribe to configuration request ${id}: ${textOf(error)}`;
  }
}
