/** The API log: one line per call that passed the token check, in Dapr's fields. */
import type { ApiLoggingSettings } from "../config/kinds/configuration.ts";
import type { HttpCall } from "../api/http.ts";
import type { Log } from "../telemetry/log.ts";

/** A finished call. `endpoint` is the name of what answered, `group` that of its route. */
export type LoggedCall = {
  readonly call: HttpCall;
  readonly endpoint: string;
  readonly group: string;
  readonly status: number;
  readonly latencyMs: number;
  readonly sizeBytes: number;
};

/** Writes the lines; undefined when API logging is off. */
export function createApiLog(
  settings: ApiLoggingSettings,
  log: Log,
): ((done: LoggedCall) => void) | undefined {
  if (!settings.enabled) return undefined;
  const scoped = log.scope("dapr.runtime.http-info");
  return ({ call, endpoint, group, status, latencyMs, sizeBytes }) => {
    if (settings.omitHealthChecks && group === "health") return;
    const agent = call.headers["user-agent"];
    scoped.always("HTTP API Called", {
      method: settings.obfuscateUrls ? endpoint : `${call.verb} ${decodedPath(call.path)}`,
      code: status,
      duration: Math.trunc(latencyMs),
      size: sizeBytes,
      ...(typeof agent === "string" ? { useragent: agent } : {}),
    });
  };
}

function decodedPath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
