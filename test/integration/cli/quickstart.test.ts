/** The quickstart as a newcomer runs it, in a home and on a NATS port of its own. */
import { mkdirSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { isRunning, makePlace, says } from "./place.ts";

const script = "scripts/quickstart.ts";
const steps = ["NATS", "Apps", "Taken", "Priced", "Published", "Delivered", "Answered", "Kept", "Read back"];

test("verifies every step once and leaves nothing, not even the NATS server it started", async () => {
  await using here = await makePlace();
  // What the user has set for other sidecars must not matter.
  const running = await here.start(script, ["--once"], {
    DAPR_API_TOKEN: "theirs",
    NAMESPACE: "theirs",
    APP_PORT: "1",
  });
  const code = await running.exited;
  const logs = running.logs();
  const told = [...logs.matchAll(/^ {2}ok {2}(.{11})/gm)].map(([, title = ""]) => title.trim());
  expect(told).toEqual(steps);
  expect(logs).toContain(`All ${steps.length} steps verified`);
  const [, server = ""] = /started the shared nats-server .*\(process (\d+)/.exec(logs) ?? [];
  expect(logs).toContain(`stopped the shared nats-server (process ${server})`);
  expect(isRunning(Number(server))).toBe(false);
  expect(code).toBe(0);
  await here.empty();
});

const waiting = ["/bin/sh", "-c", "while :; do sleep 1; done"];

test("leaves a NATS server that was there before, and stays up until Ctrl-C", async () => {
  await using here = await makePlace();
  const before = await here.run(["-a", "before"], waiting);
  expect(await before.stop()).toBe(0);
  const running = await here.start(script, []);
  const [, server = ""] = await says(
    running,
    /ok {2}NATS {7}joined the shared nats-server .*\(process (\d+)/,
  );
  await says(running, /Press Ctrl-C/, 90_000);

  const [, url = ""] = await says(running, /curl -X POST (\S+)/);
  const headers = { "content-type": "application/json" };
  const answer = await fetch(url, { method: "POST", headers, body: '{"item": "pear", "quantity": 5}' });
  expect(await answer.json()).toMatchObject({ item: "pear", quantity: 5, cents: 400, status: "placed" });
  await says(running, /^ {2}orders {2}\| order \w+: confirmed$/m);

  const twin = await here.start(script, ["--once"]);
  expect(await twin.exited).toBe(1);
  expect(twin.logs()).toMatch(/an app named "(orders|pricing)" already runs on this NATS/);

  running.signal("SIGINT");
  expect(await running.exited).toBe(0);
  expect(isRunning(Number(server))).toBe(true);
});

test("leaves the NATS server it started to those who have come to use it", async () => {
  await using here = await makePlace();
  const running = await here.start(script, []);
  const [, server = ""] = await says(running, /started the shared nats-server .*\(process (\d+)/);
  await says(running, /Press Ctrl-C/, 90_000);
  const late = await here.run(["-a", "late"], waiting);
  running.signal("SIGTERM");
  expect(await running.exited).toBe(0);
  expect(running.logs()).toContain("The NATS server stays, since others use it by now: late");
  expect(isRunning(Number(server))).toBe(true);
  expect(await late.stop()).toBe(0);
});

test("shows the logs and ends with 1 when something does not work", async () => {
  await using here = await makePlace();
  // The user's own components have no state store.
  mkdirSync(here.join("home", "components"), { recursive: true });
  writeFileSync(
    here.join("home", "components", "bus.yaml"),
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: pubsub}\nspec: {type: pubsub.nats, version: v1}\n",
  );
  const running = await here.start(script, ["--once"]);
  expect(await running.exited).toBe(1);
  const logs = running.logs();
  expect(logs).toMatch(/^quickstart: the order: got .*statestore/m);
  for (const id of ["orders", "pricing"]) {
    expect(logs).toMatch(
      new RegExp(`^--- ${id} and its sidecar, last lines\\nStarting Weft with id ${id}`, "m"),
    );
  }
  await here.empty();
});

test("ends what it has begun at Ctrl-C, at any time", async () => {
  await using here = await makePlace();
  const running = await here.start(script, []);
  await says(running, /starting orders and pricing/);
  running.signal("SIGINT");
  expect(await running.exited).toBe(130);
  await here.empty();
});

test("takes only what it knows", async () => {
  await using here = await makePlace();
  const running = await here.start(script, ["--twice"]);
  expect(await running.exited).toBe(255);
  expect(running.logs()).toContain("quickstart does not know --twice");
});
