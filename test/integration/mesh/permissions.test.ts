// NATS permissions as identity (mesh/README.md, 2.1): who may publish as whom, and how a refusal shows.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../../kit/index.ts";
import { type Lab, bytes, quickestMs, request, startLab, textOf, to } from "./lab.ts";

const config = `
authorization {
  users = [
    { user: all, password: secret }
    { user: me, password: secret, permissions: {
        publish: ["weft.*.rpc.*.default.me", "weft.*.call.*.default.me", "weft.*.cancel.*.default.me", "_INBOX.>",
                  "$JS.API.>", "$KV.weft__state__default__mine.>"]
        subscribe: ["_INBOX.>"]
    } }
  ]
}`;

let lab: Lab;
beforeAll(async () => {
  lab = await startLab({ config });
});
afterAll(() => lab[Symbol.asyncDispose]());

const as = (user: string) => ({ access: { user, password: "secret" } });

describe("a participant with permissions", () => {
  it("calls under its own name; under another name, or elsewhere, it is refused at once", async () => {
    const callee = await lab.join("callee", as("all"));
    await callee.serve(async (_request, by) => ({ status: 200, headers: [], body: bytes(by.app) }));
    const me = await lab.join("me", as("me"));
    expect(textOf((await me.call(request(), to("callee"))).body)).toBe("me");

    const thief = await lab.join("you", as("me"));
    const tookMs = await quickestMs(() =>
      expect(thief.call(request(), to("callee"))).rejects.toMatchObject({
        code: "peer",
        message: expect.stringMatching(/permissions violation.*rpc\.callee\.default\.you/i),
      }),
    );
    expect(tookMs).toBeLessThan(2_000);
    await eventually(() => expect(thief.counts().pendingRequests).toBe(0));

    const mine = await me.table({ kind: "state", name: ["default", "mine"] });
    await mine.put(["k"], bytes("v"));
    expect(textOf((await mine.get(["k"]))?.value)).toBe("v");
    const others = await me.table({ kind: "state", name: ["default", "others"] });
    await expect(others.put(["k"], bytes("v"))).rejects.toMatchObject({
      code: "peer",
      message: expect.stringMatching(/permissions/i),
    });
    expect(textOf((await me.call(request(), to("callee"))).body)).toBe("me");
  });

  it("with a wrong password keeps trying, and says why", async () => {
    const lines: string[] = [];
    const stop = new AbortController();
    const joining = lab.join("nobody", {
      access: { user: "me", password: "wrong" },
      log: (_level, text) => {
        lines.push(text);
        if (/authorization/i.test(text)) stop.abort();
      },
    });
    joining.catch(() => {});
    await new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
    expect(lines.join()).toMatch(/authorization violation/i);
  });
});
