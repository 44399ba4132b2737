/** A NATS cluster on this machine: some servers that know each other, each of which can be killed and started again. */
import { eventually, freePort, startNats } from "../../kit/index.ts";
import type { Nats } from "../../kit/index.ts";

export type Cluster = AsyncDisposable & {
  readonly servers: readonly Nats[];
  /** All addresses. */
  readonly urls: string[];
  /** The server that leads a stream now. */
  leaderOf(stream: string): Promise<Nats>;
};

/** Starts `size` servers. Resolves when JetStream can create streams with `replicas` copies (as many as servers). */
export async function startCluster(size = 3, replicas = size): Promise<Cluster> {
  const ports = await Promise.all(Array.from({ length: size * 2 }, freePort));
  const routes = ports.slice(size).map((port) => `nats-route://127.0.0.1:${port}`);
  const servers = await Promise.all(
    Array.from({ length: size }, (_, i) => {
      const cluster = `cluster { name: "test", listen: "127.0.0.1:${ports[size + i]}", routes: [${routes.join(", ")}] }`;
      return startNats({ port: ports[i]!, config: cluster });
    }),
  );
  const ask = async (subject: string, body: unknown): Promise<Record<string, unknown>> => {
    const server = servers.find((it) => it.running())!;
    const client = await server.connect();
    try {
      const answer = await client.request(`$JS.API.${subject}`, JSON.stringify(body), { timeout: 2_000 });
      return answer.json<Record<string, unknown>>();
    } finally {
      await client.close();
    }
  };
  await eventually(
    async () => {
      const config = { name: "warm_up", subjects: ["warm.up"], storage: "memory", num_replicas: replicas };
      const made = await ask("STREAM.CREATE.warm_up", config);
      if (made["error"] !== undefined) throw new Error(JSON.stringify(made["error"]));
      await ask("STREAM.DELETE.warm_up", {});
    },
    { timeoutMs: 30_000, what: "the cluster to have a leader", everyMs: 100 },
  );
  return {
    servers,
    urls: servers.map((server) => server.url),
    async leaderOf(stream) {
      const info = await ask(`STREAM.INFO.${stream}`, {});
      const leader = (info["cluster"] as { leader?: string } | undefined)?.leader;
      const found = servers.find((server) => leader === `test-${server.port}`);
      if (found === undefined) throw new Error(`stream ${stream} has no leader: ${JSON.stringify(info)}`);
      return found;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}
