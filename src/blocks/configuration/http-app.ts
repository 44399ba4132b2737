/** Tells an app of changes: one POST per change and key, one after the other. */
import type { AppChannel } from "../../app/channel.ts";
import { goJson } from "../../lib/go-json.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Policies } from "../../resiliency/policies.ts";
import { callUnder } from "../../resiliency/policy.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Change } from "./changes.ts";
import type { Watch } from "./configuration.ts";
import { itemsText } from "./json.ts";

/** Reads the changes of a subscription over HTTP until they end. Never rejects. */
export type TellApp = (store: string, watch: Watch) => Promise<void>;

const headers = ["Content-Type", "application/json"];

/** Aborting `signal` ends what is on its way. */
export function openTellApp(app: AppChannel, policies: Policies, log: Log, signal: AbortSignal): TellApp {
  const post = async (path: string, body: Buffer, now: AbortSignal): Promise<void> => {
    const status = app.protocol === "grpc" ? await invoke(path, body, now) : await plain(path, body, now);
    if (status !== 200) throw new Error(`the app answered status ${status}`);
  };
  const plain = async (path: string, body: Buffer, now: AbortSignal): Promise<number> =>
    (await app.http({ verb: "POST", path, headers, body }, now)).status;
  const invoke = async (path: string, body: Buffer, now: AbortSignal): Promise<number> => {
    const response = await app.invoke({ verb: "POST", path, query: "", headers, body }, now);
    if (!(response.body instanceof Uint8Array)) response.body.cancel(new Error("nobody reads the answer"));
    return response.status;
  };
  return async (store, { id, changes }) => {
    const guard = policies.component(store, "Configuration", "inbound");
    for await (const change of changes) {
      const body = bodyOf(id, change);
      try {
        await callUnder(guard, signal, (now) => post(pathOf(store, change.key), body, now));
      } catch (error) {
        if (signal.aborted) return;
        log.error(
          `configuration store ${store}: the app did not take the change of ${change.key}: ` + textOf(error),
        );
      }
    }
  };
}

function bodyOf(id: string, { key, item }: Change): Buffer {
  return Buffer.from(`{"id":${goJson(id)},"items":${itemsText([[key, item]])}}\n`);
}

/** Slashes of a key stay, what would end the path does not. */
function pathOf(store: string, key: string): string {
  return encodeURI(`/configuration/${store}/${key}`.toWellFormed()).replace(/[?#]/g, encodeURIComponent);
}
