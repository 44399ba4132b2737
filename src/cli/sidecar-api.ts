/** The few calls that the CLI makes to a sidecar it started: health, and notes in its metadata. */
import { request } from "node:http";
import type { Clock } from "../../mesh/index.ts";

export type SidecarAddress =
  | { readonly host: string; readonly port: number }
  | { readonly socketPath: string };

export type SidecarApi = {
  /** Resolves when the health endpoint says ready; rejects with the signal's reason. `outbound`: without the app. */
  healthy(what: "outbound" | "all", signal: AbortSignal): Promise<void>;
  /** Attaches a text to the sidecar's metadata. Rejects when the sidecar does not take it. */
  note(key: string, value: string): Promise<void>;
};

const tryMs = 2_000;
const pollMs = 50;

/** `apiToken` is what the sidecar asks its callers for, if anything. */
export function sidecarApi(address: SidecarAddress, apiToken: string | undefined, clock: Clock): SidecarApi {
  const headers: Record<string, string> = apiToken === undefined ? {} : { "dapr-api-token": apiToken };
  const call = (method: string, path: string, body = ""): Promise<number> =>
    new Promise((resolve, reject) => {
      const sent = request(
        { ...address, method, path, headers, timeout: tryMs, agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      sent.once("timeout", () => sent.destroy(new Error(`no answer within ${tryMs} ms`)));
      sent.once("error", reject);
      sent.end(body);
    });
  return {
    async healthy(what, signal) {
      const path = what === "all" ? "/v1.0/healthz" : "/v1.0/healthz/outbound";
      for (;;) {
        signal.throwIfAborted();
        if ((await call("GET", path).catch(() => 0)) === 204) return;
        await clock.sleep(pollMs, signal);
      }
    },
    async note(key, value) {
      const status = await call("PUT", `/v1.0/metadata/${encodeURIComponent(key)}`, value);
      if (status >= 300) throw new Error(`the sidecar answered ${status}`);
    },
  };
}
