// Calls between participants: what arrives is what was sent, and every way to fail ends with the code README.md names.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MeshError, type MeshResponse, type ServeHandler } from "../../../mesh/index.ts";
import { encodeRequest } from "../../../mesh/frame.ts";
import { eventually } from "../../kit/index.ts";
import {
  type Lab,
  codeOf,
  jumpingClock,
  quickestMs,
  request,
  startLab,
  textOf,
  to,
  whole,
  wholeRequest,
} from "./lab.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(() => lab[Symbol.asyncDispose]());

const ok = (body: Uint8Array = new Uint8Array(0)): MeshResponse => ({ status: 200, headers: [], body });

describe("a call", () => {
  it("carries verb, path, query, headers and bytes exactly, both ways, and names the caller", async () => {
    const caller = await lab.join("shop.front", { namespace: "n s" });
    const callee = await lab.join("prices");
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    const seen: unknown[] = [];
    await callee.serve(async (got, by, signal) => {
      seen.push({ ...got, body: Uint8Array.from(whole(got.body)) }, by, signal.aborted);
      return { status: 418, headers: ["x-a", "1", "x-a", "2", "x-ü", "é\u0000"], body: all };
    });
    const sent = {
      verb: "PATCH",
      path: "/a%20b/é?",
      query: "q=1&q=2",
      headers: ["X-One", "1", "X-One", "", "x", "\n"],
      body: all,
    };
    const got = await caller.call(sent, to("prices"));
    expect(seen).toEqual([sent, { namespace: "n s", app: "shop.front" }, false]);
    expect({ ...got, body: Uint8Array.from(whole(got.body)) }).toEqual({
      status: 418,
      headers: ["x-a", "1", "x-a", "2", "x-ü", "é\u0000"],
      body: all,
    });
  });

  it("carries what a gRPC app answered", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("grpc")];
    const grpc = {
      code: 5,
      message: "none",
      details: Buffer.from([8, 5]),
      trailers: ["k", "v"],
      contentType: "application/grpc",
    };
    await callee.serve(async () => ({ ...ok(), status: 404, grpc }));
    const got = await caller.call(request(), to("grpc"));
    expect({ ...got.grpc, details: Buffer.from(got.grpc!.details!) }).toEqual(grpc);
  });

  it("of an app can call the app itself, also with an empty body and no headers", async () => {
    const mesh = await lab.join("narcissus");
    await mesh.serve(async ({ body, query }) => ok(Buffer.from(`${body.length}${query}`)));
    expect(textOf((await mesh.call(request({ verb: "GET" }), to("narcissus"))).body)).toBe("0");
  });

  it("2,000 slow ones at once leave nothing behind", async () => {
    const [caller, callee] = [await lab.join("c"), await lab.join("slow")];
    const release = Promise.withResolvers<void>();
    await callee.serve(async ({ path }) => {
      await release.promise;
      return ok(Buffer.from(path));
    });
    const calls = Array.from({ length: 2_000 }, (_, i) =>
      caller.call(request({ path: `/${i}` }), to("slow")),
    );
    await eventually(() => callee.counts().servedCalls === 2_000);
    // Meanwhile it may also ask which of its calls are alive.
    await eventually(() => expect(caller.counts().pendingRequests).toBe(2_000));
    release.resolve();
    const answers = await Promise.all(calls);
    expect(answers.map(({ body }) => textOf(body))).toEqual(calls.map((_, i) => `/${i}`));
    await eventually(() => callee.counts().servedCalls === 0 && caller.counts().pendingRequests === 0);
  });

  it("is spread over the instances of the app", async () => {
    const caller = await lab.join("c");
    const served = [0, 0, 0];
    for (const i of served.keys()) {
      const instance = await lab.join("trio");
      await instance.serve(async () => (served[i]!++, ok()));
    }
    await Promise.all(Array.from({ length: 600 }, () => caller.call(request(), to("trio"))));
    expect(served.reduce((a, b) => a + b)).toBe(600);
    for (const count of served) expect(count).toBeGreaterThan(120);
  });
});

describe("a call that fails", () => {
  const serving = async (app: string, handler: ServeHandler) => {
    const [caller, callee] = [await lab.join("c"), await lab.join(app)];
    await callee.serve(handler);
    return { caller, callee };
  };

  it("no instance: says so at once", async () => {
    const caller = await lab.join("c");
    const tookMs = await quickestMs(async () => {
      expect(await codeOf(caller.call(request(), to("nobody")))).toBe("no-responders");
    });
    expect(tookMs).toBeLessThan(1_000);
  });

  it("the app id does not fit in a subject: too-large, and the connection lives on", async () => {
    const caller = await lab.join("c");
    expect(await codeOf(caller.call(request(), to("x".repeat(5_000))))).toBe("too-large");
    expect(await codeOf(caller.call(request(), to("nobody")))).toBe("no-responders");
  });

  it("the handler throws: peer with its words, a MeshError with its code; huge texts are answered too", async () => {
    const huge = "x".repeat(3_000_000);
    const { caller } = await serving("thrower", async ({ path }) => {
      if (path === "/error") throw new Error("no app there");
      if (path === "/mesh") throw new MeshError("closed", "leaving");
      if (path === "/own") throw new MeshError("no-responders", "mine, not yours");
      if (path === "/huge") throw new Error(huge);
      return undefined as unknown as MeshResponse;
    });
    const call = (path: string) => caller.call(request({ path }), to("thrower"));
    await expect(call("/error")).rejects.toMatchObject({ code: "peer", message: "no app there" });
    await expect(call("/mesh")).rejects.toMatchObject({ code: "closed", message: "leaving" });
    await expect(call("/own")).rejects.toMatchObject({ code: "peer", message: "mine, not yours" });
    await expect(call("/huge")).rejects.toMatchObject({ code: "peer" });
    expect(await codeOf(call("/undefined"))).toBe("peer");
  });

  it("the caller aborts: cancelled, the handler is told, nothing leaks; before the start nothing is sent", async () => {
    const aborted = Promise.withResolvers<unknown>();
    let calls = 0;
    const { caller, callee } = await serving("patient", async (_request, _by, signal) => {
      calls++;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted.resolve(signal.reason);
      throw new Error("aborted");
    });
    const stop = new AbortController();
    const call = codeOf(caller.call(request(), { ...to("patient"), signal: stop.signal }));
    await eventually(() => callee.counts().servedCalls === 1);
    stop.abort(new Error("changed my mind"));
    expect(await call).toBe("cancelled");
    expect(await aborted.promise).toMatchObject({ code: "cancelled" });
    await eventually(() => callee.counts().servedCalls === 0);
    expect(await codeOf(caller.call(request(), { ...to("patient"), signal: stop.signal }))).toBe("cancelled");
    expect(calls).toBe(1);
    await eventually(() => expect(caller.counts().pendingRequests).toBe(0));
  });

  it("the deadline passes: timeout, and the handler is told", async () => {
    const aborted = Promise.withResolvers<void>();
    const { caller } = await serving("late", async (_request, _by, signal) => {
      signal.addEventListener("abort", () => aborted.resolve());
      await aborted.promise;
      return ok();
    });
    const startMs = performance.now();
    expect(await codeOf(caller.call(request(), to("late", 200)))).toBe("timeout");
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(199);
    await aborted.promise;
  });

  it("the callee falls silent: timeout after 16 s, while one that shows progress may take longer", async () => {
    const callerClock = jumpingClock();
    const calleeClock = jumpingClock();
    const caller = await lab.join("asking", { clock: callerClock });
    const callee = await lab.join("busy", { clock: calleeClock });
    await caller.serve(async () => ok());
    const release = Promise.withResolvers<void>();
    await callee.serve(async () => (await release.promise, ok()));
    const call = codeOf(caller.call(request(), to("busy")));
    await eventually(() => callee.counts().servedCalls === 1);
    for (let second = 0; second < 60; second += 5) {
      calleeClock.jump(5_000);
      // Goes the way of the progress frame, behind it.
      await callee.call(request(), to("asking"));
      callerClock.jump(10_000);
    }
    await eventually(() => expect(caller.counts().pendingRequests).toBe(1));
    callerClock.jump(16_500);
    expect(await call).toBe("timeout");
    release.resolve();
  });

  it("the caller was frozen: progress that waits in the socket counts", async () => {
    const clock = jumpingClock();
    const caller = await lab.join("c", { clock });
    const callee = await lab.join("steady");
    const release = Promise.withResolvers<void>();
    await callee.serve(async () => (await release.promise, ok()));
    const call = codeOf(caller.call(request(), to("steady")));
    await eventually(() => callee.counts().servedCalls === 1);
    clock.leap(60_000);
    release.resolve();
    expect(await call).toBe("success");
  });

  it("the handler outlives the caller's own deadline by far: it is told even without a cancel frame", async () => {
    const clock = jumpingClock();
    const callee = await lab.join("orphanage", { clock });
    const aborted = Promise.withResolvers<unknown>();
    await callee.serve(async (_request, _by, signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted.resolve(signal.reason);
      return ok();
    });
    // A caller that is gone without a word.
    const client = await lab.nats.connect();
    client.publish("weft.default.rpc.orphanage.default.gone", encodeRequest(wholeRequest(), 1_000), {
      reply: "_INBOX.gone",
    });
    await eventually(() => callee.counts().servedCalls === 1);
    clock.jump(10_000);
    expect(await aborted.promise).toMatchObject({ code: "timeout" });
  });

  it("the mesh is closed: closed, for what waits and for what comes", async () => {
    const { caller, callee } = await serving("open", () => new Promise(() => {}));
    const call = codeOf(caller.call(request(), to("open")));
    await eventually(() => callee.counts().servedCalls === 1);
    await caller.close();
    expect(await call).toBe("closed");
    expect(await codeOf(caller.call(request(), to("open")))).toBe("closed");
    expect(await codeOf(caller.ready())).toBe("closed");
  });
});
