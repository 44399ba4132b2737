import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { expect, test } from "vitest";
import { systemClock } from "../clock.ts";
import { hasCredentials, probe, whyUnusable, type ProbeResult, type ServerInfo } from "./probe.ts";

/** Nothing here that answers is as slow as this, ms. */
const patient = 20_000;

/** What the probe makes of a server that does `onConnect` with each connection. */
async function probed(
  onConnect: (socket: Socket) => void,
  { signal, timeoutMs = patient }: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<ProbeResult> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    sockets.push(socket);
    onConnect(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await probe((server.address() as AddressInfo).port, systemClock, signal, timeoutMs);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

const info = { server_id: "ID", server_name: "n", version: "2.15.1", jetstream: true, max_payload: 1 };
const good: ServerInfo = {
  serverId: "ID",
  serverName: "n",
  version: "2.15.1",
  jetstream: true,
  authRequired: false,
  tlsRequired: false,
};

test("reads the INFO line, also in pieces", async () => {
  const line = `INFO ${JSON.stringify(info)} \r\nPING\r\n`;
  const result = await probed((socket) => {
    socket.write(line.slice(0, 20));
    setImmediate(() => socket.write(line.slice(20)));
  });
  expect(result).toEqual({ kind: "nats", info: good });
});

test.each([
  { name: "another protocol", says: "220 mail ready\r\n", detail: /not a NATS server/ },
  { name: "broken JSON", says: "INFO {\r\n", detail: /not JSON/ },
  { name: "no object", says: "INFO null\r\n", detail: /not an object/ },
  { name: "no end of line", says: "x".repeat(70_000), detail: /too long/ },
])("$name is foreign", async ({ says, detail }) => {
  const result = await probed((socket) => socket.write(says));
  expect(result).toEqual({ kind: "foreign", detail: expect.stringMatching(detail) });
});

test("silence is foreign after a while", async () => {
  const silent = probed(() => {}, { timeoutMs: 300 });
  expect(await silent).toEqual({ kind: "foreign", detail: "nothing was said in 300 ms" });
});

test("a connection that is closed at once is foreign", async () => {
  expect((await probed((socket) => socket.end())).kind).toBe("foreign");
});

test("a port without a listener is closed", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  expect(await probe(port, systemClock, undefined, patient)).toEqual({ kind: "closed" });
});

test("ends with the signal", async () => {
  const stop = new AbortController();
  const waiting = probed(() => stop.abort(new Error("enough")), { signal: stop.signal });
  await expect(waiting).rejects.toThrow("enough");
});

test.each([
  { name: "good", change: {}, reason: undefined },
  { name: "old", change: { version: "2.9.10" }, reason: /2\.9\.10 is older than 2\.14/ },
  { name: "no JetStream", change: { jetstream: false }, reason: /no JetStream.*-js/ },
  {
    name: "with a password",
    change: { authRequired: true },
    reason: /credentials.*--nats-creds, --nats-nkey, or --nats-user and --nats-password/,
  },
  { name: "with TLS", change: { tlsRequired: true }, reason: /TLS.*--nats-url/ },
])("whether a server can be used: $name", ({ change, reason }) => {
  const answer = whyUnusable({ ...good, ...change }, false);
  if (reason === undefined) expect(answer).toBeUndefined();
  else expect(answer).toMatch(reason);
});

test("credentials make a server with a password usable", () => {
  expect(whyUnusable({ ...good, authRequired: true, tlsRequired: true }, true)).toBeUndefined();
});

test.each([
  [{}, false],
  [{ credsFile: undefined, nkeyFile: undefined, user: undefined }, false],
  [{ credsFile: "a.creds" }, true],
  [{ nkeyFile: "a.nk" }, true],
  [{ user: "a" }, true],
])("%j is something to log in with: %s", (access, has) => expect(hasCredentials(access)).toBe(has));
