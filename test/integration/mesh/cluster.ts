/** A NATS cluster on this machine: some servers that know each other, each of which can be killed and started again. */
import { eventually, freePort, startNats } from "../../kit/index.ts";
import type { Nats } from "../../kit/index.ts";

export type Cluster = AsyncDisposable & {
  readonly servers: readonly Nats[];
  /** All addresses. */
  readonly urls: string[];
  /** The server that leads a stream now. */
  leaderOf(stream: string): Promise<Nats>;
  /** Resolves when all copies of a stream hold everything. */
  settled(stream: string): Promise<void>;
  /** Adds a server. */
  grow(): Promise<void>;
};

/** Starts `size` servers. Resolves when JetStream can create streams with `replicas` copies (as many as servers). */
export async function startCluster(size = 3, replicas = size): Promise<Cluster> {
  const routePorts = await Promise.all(Array.from({ length: size }, freePort));
  const routes = routePorts.map((port) => `nats-route://127.0.0.1:${port}`).join(", ");
  const start = (port: number): Promise<Nats> =>
    startNats({ config: `cluster { name: "test", listen: "127.0.0.1:${port}", routes: [${routes}] }` });
  const servers = await Promise.all(routePorts.map(start));
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
    { timeoutMs: 60_000, what: "the cluster to have a leader", everyMs: 100 },
  );
  type Peer = { readonly name: string; readonly current: boolean; readonly lag?: number };
  const clusterOf = async (stream: string): Promise<{ leader?: string; replicas?: readonly Peer[] }> => {
    const info = await ask(`STREAM.INFO.${stream}`, {});
    return info["cluster"] ?? {};
  };
  return {
    servers,
    urls: servers.map((server) => server.url),
    leaderOf(stream) {
      const attempt = async (): Promise<Nats> => {
        const { leader } = await clusterOf(stream);
        const found = servers.find((server) => leader === `test-${server.port}`);
        if (found === undefined) throw new Error(`stream ${stream} has no leader`);
        return found;
      };
      return eventually(attempt, { timeoutMs: 30_000 });
    },
    async settled(stream) {
      const attempt = async (): Promise<boolean> => {
        const { leader, replicas = [] } = await clusterOf(stream);
        return leader !== undefined && replicas.every(({ current, lag = 0 }) => current && lag === 0);
      };
      await eventually(attempt, { timeoutMs: 30_000, what: `${stream} to be whole` });
    },
    async grow() {
      servers.push(await start(await freePort()));
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}
