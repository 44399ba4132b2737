import type * as NodeHttp from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, vi } from "vitest";
import { createMetricsServer } from "./metrics-server.ts";
import { createMetrics } from "./metrics.ts";

const made = vi.hoisted(() => ({ servers: [] as NodeHttp.Server[] }));

vi.mock("node:http", async (original) => {
  const http = await original<typeof NodeHttp>();
  const createServer: typeof http.createServer = (...args: unknown[]) => {
    const server = http.createServer(...(args as []));
    made.servers.push(server);
    return server;
  };
  return { ...http, createServer };
});

const where = { address: "127.0.0.1", port: 0 };
const portOf = (server: NodeHttp.Server): number => (server.address() as AddressInfo).port;

it("logs what goes wrong after the start, however often, and serves on", async () => {
  const logged: string[] = [];
  const running = await createMetricsServer(createMetrics("a"), where, {
    error: (line) => void logged.push(line),
  });
  const server = made.servers.at(-1)!;
  for (const text of ["EMFILE", "ENFILE"]) server.emit("error", new Error(text));
  expect(logged).toEqual(["metrics server: EMFILE", "metrics server: ENFILE"]);
  const answer = await fetch(`http://127.0.0.1:${portOf(server)}/metrics`);
  expect(await answer.text()).toContain("process_resident_memory_bytes");
  await running.close();
});

it("survives it also without a log", async () => {
  const running = await createMetricsServer(createMetrics("a"), where);
  for (let i = 0; i < 2; i++) expect(made.servers.at(-1)!.emit("error", new Error("EMFILE"))).toBe(true);
  await running.close();
});

it("rejects when the port is taken, naming the fix", async () => {
  const running = await createMetricsServer(createMetrics("a"), where);
  const port = portOf(made.servers.at(-1)!);
  await expect(createMetricsServer(createMetrics("b"), { ...where, port })).rejects.toThrow(
    /^metrics: .*EADDRINUSE.*--metrics-port or --enable-metrics=false$/,
  );
  await running.close();
});
