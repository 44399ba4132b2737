// Instances that leave: in order without losing a call, or killed and frozen with a defined end for who waits.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JoinedMesh, MeshResponse, Served } from "../../../mesh/index.ts";
import { eventually } from "../../kit/index.ts";
import { type Lab, codeOf, jumpingClock, request, startLab, startParticipant, textOf, to } from "./lab.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(() => lab[Symbol.asyncDispose]());

const empty: MeshResponse = { status: 200, headers: [], body: new Uint8Array(0) };

describe("draining", () => {
  it("loses no call while 200 calls a second run and instances leave one by one", async () => {
    const caller = await lab.join("c");
    const start = async (): Promise<{ mesh: JoinedMesh; served: Served }> => {
      const mesh = await lab.join("crowd");
      const served = await mesh.serve(async () => (await sleep(20), empty));
      return { mesh, served };
    };
    const instances = await Promise.all(Array.from({ length: 6 }, start));
    const outcomes = new Map<string, number>();
    const calls: Promise<void>[] = [];
    const note = (code: string): void => void outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
    const generator = setInterval(
      () => calls.push(codeOf(caller.call(request(), to("crowd"))).then(note)),
      5,
    );
    for (const { mesh, served } of instances.slice(1)) {
      const before = calls.length;
      await eventually(() => calls.length > before + 40);
      await served.drain(5_000);
      expect(mesh.counts().servedCalls).toBe(0);
      await mesh.close();
    }
    clearInterval(generator);
    await Promise.all(calls);
    expect([...outcomes]).toEqual([["success", calls.length]]);
  });

  it("answers calls that outlast the grace with closed, tells their handlers, and takes no new ones", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("stuck")];
    const aborted = Promise.withResolvers<unknown>();
    const release = Promise.withResolvers<void>();
    const served = await callee.serve(async (_request, _by, signal) => {
      signal.addEventListener("abort", () => aborted.resolve(signal.reason));
      await release.promise;
      return empty;
    });
    const call = codeOf(caller.call(request(), to("stuck")));
    await eventually(() => callee.counts().servedCalls === 1);
    const draining = [served.drain(100), served.drain(100)];
    await Promise.all(draining);
    expect(await call).toBe("closed");
    expect(await aborted.promise).toMatchObject({ code: "closed" });
    expect(await codeOf(caller.call(request(), to("stuck")))).toBe("no-responders");
    release.resolve();
    await eventually(() => callee.counts().servedCalls === 0);
  });

  it("still lets a caller give up", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("leaving")];
    const served = await callee.serve(async (_request, _by, signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("aborted");
    });
    const stop = new AbortController();
    const call = codeOf(caller.call(request(), { ...to("leaving"), signal: stop.signal }));
    await eventually(() => callee.counts().servedCalls === 1);
    const drained = served.drain(30_000);
    await eventually(
      async () => (await codeOf(caller.call(request(), to("leaving", 300)))) === "no-responders",
    );
    stop.abort();
    await drained;
    expect(await call).toBe("cancelled");
  });

  it("happens by itself when the mesh is closed at once: the caller learns it", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("abrupt")];
    await callee.serve(() => new Promise(() => {}));
    const call = codeOf(caller.call(request(), to("abrupt")));
    await eventually(() => callee.counts().servedCalls === 1);
    await callee.close();
    expect(await call).toBe("closed");
  });

  it("a process that is asked to end finishes its calls", async () => {
    const caller = await lab.join("c");
    await using child = await startParticipant(lab.nats.url, "serve", "polite", "300");
    const call = caller.call(request({ path: "/last" }), to("polite"));
    await eventually(() => child.logs().includes("begun /last"));
    child.signal("SIGTERM");
    expect(textOf((await call).body)).toBe(String(child.pid));
    expect(await child.exited).toBe(0);
  });
});

describe("an instance that does not say goodbye", () => {
  it.each([
    ["that has shown life", 1_000],
    ["that has not", 0],
  ])(
    "killed in the middle of a call %s: interrupted soon, with a healthy one beside it",
    async (_what, ageMs) => {
      const caller = await lab.join("c");
      await using child = await startParticipant(lab.nats.url, "serve", `mortal-${ageMs}`, "60000");
      const call = codeOf(caller.call(request({ path: "/doomed" }), to(`mortal-${ageMs}`)));
      await eventually(() => child.logs().includes("begun /doomed"));
      const healthy = await lab.join(`mortal-${ageMs}`);
      const release = Promise.withResolvers<void>();
      await healthy.serve(async () => (await release.promise, empty));
      await healthy.announce();
      // Waits at the healthy one for as long as it takes, and comes to no harm: NATS has given the other its call.
      const others = Array.from({ length: 8 }, () => codeOf(caller.call(request(), to(`mortal-${ageMs}`))));
      const begun = (): number => child.logs().split("begun").length - 1;
      await eventually(() => healthy.counts().servedCalls + begun() === 9);
      // The age of the calls, by which they differ.
      await sleep(ageMs);
      const atHealthy = healthy.counts().servedCalls;
      const startMs = performance.now();
      await child.kill("SIGKILL");
      expect(await call).toBe("interrupted");
      // Before the limit of 16 s for silence.
      expect(performance.now() - startMs).toBeLessThan(15_000);
      release.resolve();
      const outcomes = await Promise.all(others);
      expect(outcomes.filter((code) => code === "success")).toHaveLength(atHealthy);
      expect(outcomes.filter((code) => code === "interrupted")).toHaveLength(8 - atHealthy);
      // The roll calls among the instances end by themselves.
      await eventually(() => expect(caller.counts()).toMatchObject({ pendingRequests: 0, streams: 0 }));
      await healthy.close();
    },
  );

  it("the only one, killed in the middle of a call: interrupted; the next call says that nobody is there", async () => {
    const caller = await lab.join("c");
    await using child = await startParticipant(lab.nats.url, "serve", "last", "60000");
    const call = codeOf(caller.call(request({ path: "/doomed" }), to("last")));
    await eventually(() => child.logs().includes("begun /doomed"));
    const startMs = performance.now();
    await child.kill("SIGKILL");
    expect(await call).toBe("interrupted");
    expect(performance.now() - startMs).toBeLessThan(15_000);
    expect(await codeOf(caller.call(request(), to("last")))).toBe("no-responders");
    await using next = await startParticipant(lab.nats.url, "serve", "last", "0");
    expect(textOf((await caller.call(request(), to("last"))).body)).toBe(String(next.pid));
  });

  it("a caller that is killed: the handler of its call is told", async () => {
    const callee = await lab.join("bereft");
    const told = Promise.withResolvers<unknown>();
    await callee.serve(async (_request, _by, signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      told.resolve(signal.reason);
      return empty;
    });
    await using calling = await startParticipant(lab.nats.url, "ask", "bereft");
    await eventually(() => callee.counts().servedCalls === 1);
    await calling.kill("SIGKILL");
    expect(await told.promise).toMatchObject({ code: "cancelled" });
    await eventually(() => callee.counts().servedCalls === 0);
  });

  it("frozen: timeout within the liveness bound; when it goes on, its late answer harms nobody", async () => {
    const clock = jumpingClock();
    const caller = await lab.join("c", { clock });
    await using child = await startParticipant(lab.nats.url, "serve", "frozen", "50");
    await caller.call(request(), to("frozen"));
    await child.pause();
    const call = codeOf(caller.call(request({ path: "/asleep" }), to("frozen")));
    // What follows on the connection has an answer, so the call has been sent.
    await codeOf(caller.call(request(), to("nobody")));
    clock.jump(16_500);
    expect(await call).toBe("timeout");
    child.resume();
    expect(textOf((await caller.call(request(), to("frozen"))).body)).toBe(String(child.pid));
    await eventually(() => caller.counts().pendingRequests === 0);
  });
});
