// The kit itself, against the real things it starts: data outlives a restart, faults are faults, nothing is left.
import { existsSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { AppCallback } from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import {
  eventually,
  faultProxy,
  freePort,
  grpcClient,
  GrpcError,
  grpcStatus,
  httpClient,
  nodeBinary,
  python,
  startApp,
  startGrpcApp,
  startNats,
  startProcess,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";

const here = import.meta.dirname;

describe("nats", () => {
  test("keeps port and data over kill and restart", async () => {
    await using nats = await startNats();
    const client = await nats.connect();
    const manager = await jetstreamManager(client);
    await manager.streams.add({ name: "S", subjects: ["s.>"] });
    await jetstream(client).publish("s.one", "kept");
    const before = nats.pid;
    expect(await nats.kill()).toBe(128 + 9);
    expect(nats.running()).toBe(false);
    await nats.restart();
    expect(nats.pid).not.toBe(before);
    const again = await nats.connect();
    const stored = await (await jetstreamManager(again)).streams.getMessage("S", { seq: 1 });
    expect(stored?.string()).toBe("kept");
  });

  test("takes max_payload, and answers nothing while frozen", async () => {
    await using nats = await startNats({ maxPayload: 4096 });
    const client = await nats.connect();
    expect(client.info?.max_payload).toBe(4096);
    await client.flush();
    await nats.pause();
    let flushed = false;
    const answer = client.flush().then(() => (flushed = true));
    await expect(eventually(() => flushed, { timeoutMs: 300 })).rejects.toThrow(/not within/);
    nats.resume();
    await answer;
  });
});

describe("fault proxy", () => {
  test("passes bytes, cuts, refuses, and heals", async () => {
    await using app = await startApp({ routes: { "/hello": () => ({ body: "hi" }) } });
    await using proxy = await faultProxy(app.port);
    await using client = httpClient(proxy.url("http"));
    expect((await client.get("/hello")).text).toBe("hi");
    expect(proxy.connections()).toBe(1);
    proxy.cut();
    await eventually(() => proxy.connections() === 0);
    // Its first request needs a connection of its own.
    await using late = httpClient(proxy.url("http"));
    await expect(late.get("/hello")).rejects.toThrow();
    proxy.heal();
    expect((await client.get("/hello")).text).toBe("hi");
    expect(proxy.accepted()).toBeGreaterThanOrEqual(3);
  });

  test("holds bytes back while blocked and lets them go afterwards", async () => {
    await using app = await startApp({ routes: { "/hello": () => ({ body: "late" }) } });
    await using proxy = await faultProxy(app.port);
    await using client = httpClient(proxy.url("http"));
    proxy.block();
    const answer = client.get("/hello");
    await eventually(() => proxy.connections() === 1);
    await expect(client.http("/hello", { timeoutMs: 300 })).rejects.toThrow(/timeout/i);
    expect(app.requests).toHaveLength(0);
    proxy.heal();
    expect((await answer).text).toBe("late");
  });

  test("slows down to the given rate and latency", async () => {
    await using app = await startApp({ routes: { "/big": () => ({ body: Buffer.alloc(50_000) }) } });
    await using proxy = await faultProxy(app.port);
    await using client = httpClient(proxy.url("http"));
    proxy.slow(200_000, 50);
    const started = performance.now();
    expect((await client.get("/big")).bytes).toHaveLength(50_000);
    expect(performance.now() - started).toBeGreaterThan(300);
  });
});

describe("app", () => {
  test("records requests, lists subscriptions, fails on command", async () => {
    await using app = await startApp();
    app.subscribe({ pubsubname: "bus", topic: "orders", route: "/orders" });
    await using client = httpClient(app.url);
    expect((await client.get("/dapr/subscribe")).json()).toEqual([
      { pubsubname: "bus", topic: "orders", route: "/orders" },
    ]);
    await client.post("/orders?x=1", { id: 7 }, { "x-a": "b" });
    const [request] = await app.received("/orders", 1);
    expect(request?.json()).toEqual({ id: 7 });
    expect([request?.method, request?.query, request?.headers["x-a"]]).toEqual(["POST", "x=1", "b"]);
    await app.fail("status", 503);
    expect((await client.post("/orders", {})).status).toBe(503);
    await app.fail("reset");
    await expect(client.post("/orders", {})).rejects.toThrow();
    await app.fail("refuse");
    await expect(client.post("/orders", {})).rejects.toThrow(/ECONNREFUSED/);
    await app.heal();
    expect((await client.post("/orders", {})).status).toBe(200);
    expect(app.requests).toHaveLength(2);
  });

  test("leaves a request unanswered while it hangs", async () => {
    await using app = await startApp({ routes: { "/x": () => ({ body: "done" }) } });
    await using client = httpClient(app.url);
    await app.fail("hang");
    const answer = client.get("/x");
    await expect(client.http("/x", { timeoutMs: 300 })).rejects.toThrow(/timeout/i);
    await app.heal();
    expect((await answer).text).toBe("done");
  });
});

describe("gRPC", () => {
  test("client and app meet: messages, metadata, status", async () => {
    await using app = await startGrpcApp({
      subscriptions: [{ pubsubName: "bus", topic: "t" }],
      onInvoke: (request, metadata) => {
        if (request.method === "fail") throw grpcStatus(5, "no such thing");
        return {
          data: { typeUrl: "", value: Buffer.from(String(metadata.get("x-a")[0])) },
          contentType: "text/plain",
        };
      },
    });
    using client = grpcClient(app.port);
    const answer = await client.unary(
      AppCallback.method.onInvoke,
      { method: "m" },
      { metadata: { "x-a": "b" } },
    );
    expect(Buffer.from(answer.data?.value ?? []).toString()).toBe("b");
    expect(app.invocations).toHaveLength(1);
    const error = await client
      .unary(AppCallback.method.onInvoke, { method: "fail" })
      .catch((it: unknown) => it);
    expect(error).toBeInstanceOf(GrpcError);
    expect(error).toMatchObject({ code: 5, details: "no such thing" });
    const list = await client.unary(AppCallback.method.listTopicSubscriptions, {});
    expect(list.subscriptions[0]?.topic).toBe("t");
    await expect(client.unary(Dapr.method.getMetadata, {})).rejects.toMatchObject({ code: 12 });
  });
});

describe("sidecar", () => {
  const nats = { url: "nats://127.0.0.1:1" };
  const command = [nodeBinary(), join(here, "pretends.ts")] as const;

  test("gets ports, flags and a home of its own, and is ready when it says so", async () => {
    const resources = { "a.yaml": "kind: Component" };
    await using sidecar = await startSidecar({
      appId: "shop",
      appPort: 1,
      nats,
      command,
      resources,
      flags: ["--app-port=2"],
    });
    const [words = "[]", environment = "{}"] = sidecar.logs().split("\n");
    const flags = JSON.parse(words) as string[];
    expect(flags).toContain("--app-id=shop");
    expect(flags).toContain(`--dapr-http-port=${sidecar.httpPort}`);
    expect(flags).toContain("--nats-url=nats://127.0.0.1:1");
    expect(flags).toContain(`--resources-path=${sidecar.resourcesPath}`);
    expect(flags.filter((it) => it.startsWith("--app-port"))).toEqual(["--app-port=2"]);
    expect(JSON.parse(environment)).toMatchObject({ WEFT_HOME: sidecar.home, HOME: sidecar.home });
    expect(JSON.parse(environment)).not.toHaveProperty("VITEST");
    expect((await sidecar.get("/a//b/../%2F?x")).text).toBe("/a//b/../%2F?x");
  });

  test("restarts on the same ports; stop and kill tell how it ended", async () => {
    await using sidecar = await startSidecar({ appId: "shop", nats, command });
    const { pid, httpPort } = sidecar;
    await sidecar.restart();
    expect([sidecar.httpPort, sidecar.running()]).toEqual([httpPort, true]);
    expect(sidecar.pid).not.toBe(pid);
    expect(await sidecar.stop()).toBe(0);
    await sidecar.restart();
    expect(await sidecar.kill()).toBe(128 + 9);
  });

  test("a bare environment is bare", async () => {
    await using sidecar = await startSidecar({
      appId: "shop",
      nats: "find",
      command,
      bareEnv: true,
      env: { A: "1" },
    });
    const [flags, environment = ""] = sidecar.logs().split("\n");
    expect(JSON.parse(environment)).toEqual({ A: "1" });
    expect(flags).not.toContain("nats-url");
  });

  test("one that ends or never gets ready is an error with its log", async () => {
    const broken = startSidecar({ appId: "broken", nats, command });
    await expect(broken).rejects.toThrow(/ended with code 3 at its start[^]*this sidecar cannot start/);
    // Long enough for the process to start on a busy machine.
    const sick = startSidecar({ appId: "sick", nats, command, readyTimeoutMs: 5_000 });
    await expect(sick).rejects.toThrow(/healthz says 500/);
  });
});

describe("processes", () => {
  test("ports are never handed out twice while free", async () => {
    const ports = await Promise.all(Array.from({ length: 20 }, () => freePort()));
    expect(new Set(ports).size).toBe(20);
  });

  test("exit codes, output and environment are told", async () => {
    await using ended = await startProcess({
      name: "script",
      command: nodeBinary(),
      args: ["-e", "console.log(Object.keys(process.env).sort().join()); process.exit(7)"],
      env: { A: "1" },
      bareEnv: true,
    });
    expect(await ended.exited).toBe(7);
    expect(ended.logs().trim()).toBe("A");
  });

  test("python has the pinned packages", async () => {
    const code = "import dapr.clients, dapr.ext.grpc, nats, msgpack; print('all there')";
    await using ended = await startProcess({ name: "python", command: await python(), args: ["-c", code] });
    expect([await ended.exited, ended.logs().trim()]).toEqual([0, "all there"]);
  }, 180_000);

  test("nothing outlives a test process that is killed", async () => {
    await using folder = tempDir("leak");
    const script = join(here, "leaves-behind.ts");
    await using victim = await startProcess({ name: "leaver", command: nodeBinary(), args: [script] });
    const [pid = 0, left = ""] = await eventually(() => {
      const words = victim.logs().match(/pid (\d+) folder (\S+)\n/);
      if (words === null) throw new Error(`it has not started yet: ${victim.logs()}`);
      return [Number(words[1]), words[2]];
    });
    expect(existsSync(left)).toBe(true);
    expect(alive(pid)).toBe(true);
    await victim.kill("SIGKILL");
    await eventually(() => !alive(pid) && !existsSync(left));
    expect(folder.path).not.toBe(left);
  });
});

function alive(pid: number): boolean {
  // A zombie still takes signals, so ask for its state.
  const state = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
  return state !== "" && !state.startsWith("Z");
}
