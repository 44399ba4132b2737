/** `weft status` and `weft down`: what they see, and what they touch. */
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { freePort, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { eventually } from "../../kit/eventually.ts";
import { isRunning, makePlace, says, type Place } from "./place.ts";

type Status = {
  readonly nats: {
    readonly way: string;
    readonly connected: boolean;
    readonly pid?: number;
    readonly port?: number;
  };
  readonly sidecars: readonly {
    readonly namespace: string;
    readonly app: string;
    readonly pid: number;
    readonly ageSeconds: number;
  }[];
};

async function status(here: Place): Promise<Status> {
  const { code, logs } = await here.weft("status", "-o", "json");
  expect(code).toBe(0);
  return JSON.parse(logs) as Status;
}

const waiting = ["/bin/sh", "-c", "while :; do sleep 1; done"];

test("says so when there is no NATS, and starts none", async () => {
  await using here = await makePlace();
  expect(await status(here)).toMatchObject({ nats: { way: "none", connected: false }, sidecars: [] });
  expect((await here.weft("status")).logs).toContain(
    "no NATS server is running; the next sidecar starts one",
  );
  expect(await here.weft("status", "-q")).toEqual({ code: 1, logs: "" });
  expect(await here.weft("down")).toMatchObject({
    code: 0,
    logs: expect.stringMatching(/no shared nats-server of .* is running/),
  });
  expect(existsSync(here.home)).toBe(false);
  expect(here.left()).toEqual([]);
});

test("shows the shared server and who is on it; down stops it, also after sidecars brought it back", async () => {
  await using here = await makePlace();
  const running = await here.run(["-a", "shop"], waiting);
  const [, sidecar = ""] = await says(running, /Starting Weft .* pid (\d+), app/);
  const seen = await status(here);
  expect(seen.nats).toMatchObject({ way: "shared", connected: true, port: here.natsPort });
  expect(seen.sidecars).toMatchObject([{ namespace: "default", app: "shop", pid: Number(sidecar) }]);
  const table = await here.weft("status");
  expect(table.logs).toMatch(
    new RegExp(`^default +shop +[0-9a-f]{16} +\\S+ +${sidecar} +\\d+s +0\\.1\\.0 +ready$`, "m"),
  );
  expect((await here.weft("status", "-q")).code).toBe(0);

  const first = seen.nats.pid ?? 0;
  expect(isRunning(first)).toBe(true);
  const down = await here.weft("down");
  expect(down.code).toBe(0);
  expect(down.logs).toContain(`sidecars are still running: shop (process ${sidecar})`);
  expect(down.logs).toContain(`stopped the shared nats-server (process ${first})`);
  expect(isRunning(first)).toBe(false);
  const again = await eventually(
    async () => {
      const { nats, sidecars } = await status(here);
      expect(sidecars).toHaveLength(1);
      return nats.pid;
    },
    { timeoutMs: 40_000 },
  );
  expect(again).not.toBe(first);

  expect(await running.stop()).toBe(0);
  expect((await status(here)).sidecars).toEqual([]);
  expect((await here.weft("down")).logs).not.toContain("still running");
  expect(isRunning(again ?? 0)).toBe(false);
  expect((await status(here)).nats.way).toBe("none");
  await here.empty();
});

test("shows a server that is not Weft's, and down leaves it", async () => {
  await using here = await makePlace();
  await using nats = await startNats({ port: here.natsPort });
  expect((await status(here)).nats).toMatchObject({ way: "found", connected: true, port: here.natsPort });
  const down = await here.weft("down");
  expect(down).toMatchObject({ code: 0, logs: expect.stringContaining("is not Weft's to stop") });
  expect(nats.running()).toBe(true);
});

test("shows which apps are not up and which are ill", async () => {
  await using here = await makePlace();
  await using nats = await startNats();
  await using app = await startApp({ routes: { "/healthz": () => ({ status: 503 }) } });
  const flags = ["--enable-app-health-check=true"];
  await using absent = await startSidecar({
    appId: "absent",
    appPort: await freePort(),
    nats,
    wait: "outbound",
  });
  await using ill = await startSidecar({ appId: "ill", appPort: app.port, nats, flags });
  await using ready = await startSidecar({ appId: "ready", nats });
  const lines = async (): Promise<void> => {
    const { logs } = await here.weft("status", "--nats-url", nats.url);
    expect(logs).toMatch(/ absent .* app not up$/m);
    expect(logs).toMatch(/ ill .* app ill$/m);
    expect(logs).toMatch(/ ready .* ready$/m);
  };
  await eventually(lines, { timeoutMs: 40_000 });
  expect([absent, ill, ready].every((sidecar) => sidecar.running())).toBe(true);
});

test("tells when a given server cannot be reached", async () => {
  await using here = await makePlace();
  const url = `nats://user:secret@127.0.0.1:${here.natsPort}`;
  const { code, logs } = await here.weft("status", "--nats-url", url);
  expect(code).toBe(1);
  expect(logs).toMatch(/127\.0\.0\.1:\d+, as given\nIt cannot be asked: no connection within 5 s/);
  expect(logs).not.toContain("secret");
});
