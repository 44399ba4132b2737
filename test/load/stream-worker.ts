/**
 * The far ends of streams, in a thread of their own. As `app`: `/echo` gives back what comes, `/sink` counts it,
 * `/source/<n>` makes n bytes. As `nats`: takes messages on `bench.stream` and grants more in place of the taken ones.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import { connect } from "@nats-io/transport-node";
import { pour } from "./stream-load.ts";

const { role, url, messages } = workerData as { role: "app" | "nats"; url: string; messages: number };
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
const tell = (what: number): void => parentPort!.postMessage(what);

if (role === "app") serveApp();
else await takeMessages();

function serveApp(): void {
  const server = createServer((incoming, response) => {
    const [, kind, size] = (incoming.url ?? "").split("/");
    if (kind === "echo") return void incoming.pipe(response);
    if (kind === "source") return void incoming.resume().on("end", () => pour(response, Number(size)));
    let taken = 0;
    incoming.on("data", (chunk: Buffer) => (taken += chunk.length));
    incoming.on("end", () => response.end(String(taken)));
  });
  server.listen(0, "127.0.0.1", () => tell((server.address() as AddressInfo).port));
}

async function takeMessages(): Promise<void> {
  const client = await connect({ servers: [url] });
  let taken = 0;
  client.subscribe("bench.stream", {
    callback: () => {
      taken++;
      if (taken % 4 === 0 || taken === messages) client.publish("bench.taken", String(taken));
    },
  });
  await client.flush();
  tell(0);
}
