// Policies, endpoints and the Configuration are exchanged again and again while clients call without a pause, on
// connections that are kept and on fresh ones, over HTTP and gRPC, directly and through the mesh: no call may fail.
import { Agent, createServer, get, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, type Nats, type Sidecar, startNats, startSidecar } from "../../kit/index.ts";
import { component, put } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const rounds = 10;
const pubsub = component("pubsub", "pubsub.in-memory");
const upper = component("upper", "middleware.http.uppercase");

const resiliency = (round: number): string => `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: r }
spec:
  policies:
    timeouts: { DefaultAppTimeoutPolicy: ${20 + round}s }
    retries: { some: { policy: constant, duration: 1ms, maxRetries: ${round % 3} } }
    circuitBreakers: { DefaultComponentCircuitBreakerPolicy: { trip: consecutiveFailures > 5 } }
  targets: { apps: { out: { retry: some } } }
`;
const endpoint = (url: string, round: number): string => `apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: { name: out }
spec: { baseUrl: "${url}/${round}" }
`;
const admitted = "{ appId: caller, defaultAction: allow, namespace: default, trustDomain: public }";
/** Everything that leaves the calls of the load as they are. */
const configuration = (round: number): string => `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: c }
spec:
  tracing: { samplingRate: "${round % 3}", stdout: false }
  metrics: { enabled: ${round % 4 !== 0}, http: { increasedCardinality: ${round % 2 === 0} } }
  logging: { apiLogging: { enabled: ${round % 2 === 0} } }
  httpPipeline: { handlers: [${round % 2 === 0 ? "" : "{ name: upper, type: middleware.http.uppercase }"}] }
  appHttpPipeline: { handlers: [${round % 3 === 0 ? "" : "{ name: upper, type: middleware.http.uppercase }"}] }
  accessControl: { defaultAction: ${round % 2 === 0 ? "allow" : `deny, policies: [${admitted}]`} }
  api: { denied: [{ name: ${round % 2 === 0 ? "lock" : "state"}, version: v1.0, protocol: http }] }
`;

test("no call fails, and open streams go on", { timeout: 400_000 }, async () => {
  await using app = await startOwnApp();
  const resources = {
    "pubsub.yaml": pubsub,
    "upper.yaml": upper,
    "r.yaml": resiliency(0),
    "e.yaml": endpoint(app.url, 0),
  };
  const own = { appId: "loaded", appPort: app.port, nats, config: configuration(0), resources };
  await using sidecar = await startSidecar(own);
  await using caller = await startSidecar({ appId: "caller", nats });
  const streams = await openStreams(sidecar, app);
  const load = startLoad(sidecar, caller);

  for (let round = 1; round <= rounds; round++) {
    put(sidecar, "r.yaml", resiliency(round));
    await eventually(async () => expect(await triesOf(sidecar, app)).toBe(1 + (round % 3)), patient);
    put(sidecar, "e.yaml", endpoint(app.url, round));
    await eventually(async () => expect((await called(sidecar)).text).toBe(`/${round}/m`), patient);
    writeFileSync(join(dirname(sidecar.resourcesPath), "config.yaml"), configuration(round));
    const shut = round % 2 === 1;
    await eventually(async () => {
      expect((await sidecar.get("/v1.0/state/none/k")).status === 404).toBe(shut);
    }, patient);
    await streams.goOn(`round ${round}`);
  }

  const { calls, failures } = await load.end();
  expect(failures).toEqual([]);
  for (const [kind, count] of Object.entries(calls))
    expect([kind, count]).toEqual([kind, expect.any(Number)]);
  expect(Math.min(...Object.values(calls))).toBeGreaterThan(rounds * 5);
  await streams.end();
  expect(sidecar.logs().split("Starting Weft")).toHaveLength(2);
});

const patient = { timeoutMs: 30_000 };

function called(sidecar: Sidecar): Promise<{ status: number; text: string }> {
  return sidecar.get("/v1.0/invoke/out/method/m");
}

async function triesOf(sidecar: Sidecar, app: OwnApp): Promise<number> {
  const before = app.failed();
  await sidecar.get("/v1.0/invoke/out/method/fails");
  return app.failed() - before;
}

type OwnApp = AsyncDisposable & {
  readonly port: number;
  readonly url: string;
  /** Requests that were answered with 503. */
  failed(): number;
  /** The answer that is being written. */
  streaming(): Promise<ServerResponse>;
};

/** Answers `/stream` piece by piece, `/fails` with 503, and all else with its path. */
async function startOwnApp(): Promise<OwnApp> {
  let failed = 0;
  const streaming = Promise.withResolvers<ServerResponse>();
  const server = createServer((request, response) => {
    if (request.url === "/dapr/subscribe") return response.end("[]");
    if (request.url === "/stream") return streaming.resolve(response);
    if (request.url?.endsWith("/fails") === true) {
      failed++;
      response.statusCode = 503;
    }
    response.end(request.url);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    failed: () => failed,
    streaming: () => streaming.promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** An answer that is read while it is written, and a stream of events. */
async function openStreams(sidecar: Sidecar, app: OwnApp) {
  const client = grpcClient(sidecar.grpcPort);
  const events = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
  const first = { pubsubName: "pubsub", topic: "t", metadata: {} };
  events.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value: first } });
  expect((await events.next())?.subscribeTopicEventsResponseType.case).toBe("initialResponse");
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${sidecar.httpUrl}/v1.0/invoke/loaded/method/stream`, resolve).once("error", reject);
    void app.streaming().then((answer) => answer.write("begin "));
  });
  const answer = await app.streaming();
  const pieces = response.setEncoding("utf8")[Symbol.asyncIterator]() as AsyncIterator<string>;
  const readUntil = async (text: string): Promise<void> => {
    for (let read = ""; !read.includes(text);) {
      const { value, done } = await pieces.next();
      if (done === true) throw new Error(`the answer ended before ${text}`);
      read += value;
    }
  };
  await readUntil("begin");
  return {
    async goOn(text: string): Promise<void> {
      answer.write(`${text};`);
      await readUntil(`${text};`);
      expect((await sidecar.post("/v1.0/publish/pubsub/t", text)).status).toBe(204);
      const event = (await events.next())?.subscribeTopicEventsResponseType;
      if (event?.case !== "eventMessage") throw new Error(`the stream of events gave ${event?.case}`);
      events.send({
        subscribeTopicEventsRequestType: {
          case: "eventProcessed",
          value: { id: event.value.id, status: { status: 0 } },
        },
      });
    },
    async end(): Promise<void> {
      answer.end("end;");
      await readUntil("end;");
      events.cancel();
      client[Symbol.dispose]();
    },
  };
}

type Calls = Record<string, number>;

function startLoad(sidecar: Sidecar, caller: Sidecar) {
  const kept = new Agent({ keepAlive: true, maxSockets: 2 });
  const client = grpcClient(sidecar.grpcPort);
  const fails: string[] = [];
  const calls: Calls = {};
  let ended = false;
  const ask = (url: string, agent: Agent | false) => (): Promise<void> =>
    new Promise((resolve, reject) => {
      const request = get(url, { agent }, (response) => {
        response.resume();
        response.once("end", () =>
          response.statusCode === 200 || response.statusCode === 204
            ? resolve()
            : reject(new Error(`status ${response.statusCode}`)),
        );
        response.once("error", reject);
      });
      request.once("error", reject);
    });
  const overGrpc = async (by: typeof client): Promise<void> => {
    await by.unary(Dapr.method.invokeService, {
      id: "loaded",
      message: { method: "m", httpExtension: { verb: 1 } },
    });
  };
  const kinds: Record<string, () => Promise<void>> = {
    "HTTP, kept": ask(`${sidecar.httpUrl}/v1.0/invoke/loaded/method/m`, kept),
    "HTTP, fresh": ask(`${sidecar.httpUrl}/v1.0/invoke/loaded/method/m`, false),
    "metadata, fresh": ask(`${sidecar.httpUrl}/v1.0/metadata`, false),
    "endpoint, kept": ask(`${sidecar.httpUrl}/v1.0/invoke/out/method/m`, kept),
    "metrics, fresh": ask(`http://127.0.0.1:${sidecar.metricsPort}/`, false),
    "mesh, kept": ask(`${caller.httpUrl}/v1.0/invoke/loaded/method/m`, kept),
    "gRPC, kept": () => overGrpc(client),
    "gRPC, fresh": async () => {
      using fresh = grpcClient(sidecar.grpcPort);
      await overGrpc(fresh);
    },
  };
  const workers = Object.entries(kinds).map(async ([kind, call]) => {
    calls[kind] = 0;
    while (!ended) {
      try {
        await call();
        calls[kind]++;
      } catch (error) {
        fails.push(`${kind}: ${String(error)}`);
        if (fails.length > 10) return;
      }
    }
  });
  return {
    async end(): Promise<{ calls: Calls; failures: readonly string[] }> {
      ended = true;
      await Promise.all(workers);
      kept.destroy();
      client[Symbol.dispose]();
      return { calls, failures: fails };
    },
  };
}
