/** `weftd --wait`: polls a sidecar of this machine until its outbound health is good. */
import { get } from "node:http";
import { systemClock } from "../mesh/index.ts";

const periodMs = 100;
const tryMs = 500;
const totalMs = 60_000;

/** Always resolves with exit code 0, also when the sidecar was not ready in time (Dapr's rule). */
export async function waitForSidecar(httpPort: string): Promise<number> {
  const endMs = systemClock.monotonicMs() + totalMs;
  while (systemClock.monotonicMs() < endMs) {
    if (await isReady(httpPort)) return 0;
    await systemClock.sleep(periodMs);
  }
  return 0;
}

function isReady(httpPort: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(
      { host: "localhost", port: httpPort, path: "/v1.0/healthz/outbound", timeout: tryMs },
      (response) => {
        response.resume();
        resolve(response.statusCode === 204);
      },
    );
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(false));
  });
}
