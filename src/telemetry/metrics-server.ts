/** Serves the Prometheus text on the metrics port, whatever the path. */
import { createServer } from "node:http";
import type { Metrics } from "./metrics.ts";

/** Rejects at once when the port is taken, with the fix in the message. */
export async function createMetricsServer(
  metrics: Metrics,
  where: { readonly address: string; readonly port: number },
): Promise<{ close(): Promise<void> }> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { "Content-Type": metrics.contentType }).end(metrics.render());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(new Error(`metrics: ${error.message}; choose another --metrics-port or --enable-metrics=false`)),
    );
    server.listen(where.port, where.address === "0.0.0.0" ? undefined : where.address, resolve);
  });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
