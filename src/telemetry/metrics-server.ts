/** Serves the Prometheus text on the metrics port, whatever the path. */
import { createServer } from "node:http";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";

/**
 * Rejects at once when the port is taken, with the fix in the message. What the server meets later, such as a lack
 * of file descriptors, is logged and does not end the process.
 */
export async function createMetricsServer(
  metrics: Metrics,
  where: { readonly address: string; readonly port: number },
  log?: Pick<Log, "error">,
): Promise<{ close(): Promise<void> }> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { "Content-Type": metrics.contentType }).end(metrics.render());
  });
  await new Promise<void>((resolve, reject) => {
    let listening = false;
    server.on("error", (error) => {
      if (listening) return log?.error(`metrics server: ${error.message}`);
      reject(new Error(`metrics: ${error.message}; choose another --metrics-port or --enable-metrics=false`));
    });
    server.listen(where.port, where.address === "0.0.0.0" ? undefined : where.address, () => {
      listening = true;
      resolve();
    });
  });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
