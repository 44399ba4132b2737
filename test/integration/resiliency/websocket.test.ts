// A WebSocket under policies: its beginning is a success, and what follows has no time limit.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { startNats, startSidecar } from "../../kit/index.ts";

const resiliency = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: tunnels }
spec:
  policies:
    timeouts: { quick: 5s }
    retries: { steady: { policy: constant, duration: 10ms, maxRetries: 3 } }
    circuitBreakers: { nervous: { trip: totalFailures >= 1 } }
  targets:
    apps:
      talker: { timeout: quick, retry: steady, circuitBreaker: nervous }
`;

test("opens again and again, and outlives the timeout", async () => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
  // Each answer takes a while.
  server.on("connection", (socket) =>
    socket.on("message", (data) => setTimeout(() => socket.send(data as Buffer), 250)),
  );
  await using nats = await startNats();
  const { port } = server.address() as AddressInfo;
  await using sidecar = await startSidecar({
    appId: "talker",
    appPort: port,
    nats,
    resources: { "resiliency.yaml": resiliency },
  });
  const url = `ws://127.0.0.1:${sidecar.httpPort}/v1.0/invoke/talker/method/echo`;
  const echo = async (socket: WebSocket): Promise<string> => {
    socket.send("hello");
    const [data] = (await once(socket, "message")) as [Buffer];
    return data.toString();
  };
  const first = new WebSocket(url);
  await once(first, "open");
  expect(await echo(first)).toBe("hello");
  const second = new WebSocket(url);
  await once(second, "open");
  expect(await echo(second)).toBe("hello");
  // Together longer than the timeout of the policy.
  for (let i = 0; i < 21; i++) expect(await echo(first)).toBe("hello");
  for (const socket of [first, second]) socket.terminate();
  server.close();
});
