/** `weft run` with real processes: what the app gets, how it ends, and that nothing is left in any case. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "../../kit/eventually.ts";
import { checkout, freePort, nodeBinary, startNats } from "../../kit/index.ts";
import type { Nats, RunningProcess } from "../../kit/index.ts";
import { isRunning, makePlace, says, type Place } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(() => nats[Symbol.asyncDispose]());

const place = (): Promise<Place> => makePlace({ natsUrl: nats.url });

/** An app that answers on its port with its process id, and says so when it listens. */
const echo = [
  nodeBinary(),
  "-e",
  `const answer = (url) => (url === "/dapr/subscribe" ? "[]" : String(process.pid));
   require("node:http").createServer((request, response) => response.end(answer(request.url)))
    .listen(process.env.APP_PORT, "127.0.0.1", () => console.log("the app listens"))`,
];

/** Ids of app and sidecar, as the sidecar's metadata and log tell them. */
async function pidsOf(running: RunningProcess): Promise<{ app: number; sidecar: number; cli: number }> {
  const [, port = ""] = await says(running, /HTTP Port: (\d+)/);
  const answer = await fetch(`http://127.0.0.1:${port}/v1.0/metadata`);
  const { extended } = (await answer.json()) as { extended: Record<string, string> };
  const [, sidecar = ""] = await says(running, /Starting Weft .* pid (\d+), app/);
  return { app: Number(extended["appPID"]), cli: Number(extended["cliPID"]), sidecar: Number(sidecar) };
}

test("gives the app its environment, tells its lines apart, and ends with its exit code", async () => {
  await using here = await place();
  const script = `echo "id=$APP_ID http=$DAPR_HTTP_PORT grpc=$DAPR_GRPC_PORT metrics=$DAPR_METRICS_PORT port=$APP_PORT"
    echo "on stderr" >&2; printf "no line end"; exit 7`;
  const { code, logs } = await here.weft("run", "--app-id", "shop", "--", "/bin/sh", "-c", script);
  expect(logs).toMatch(/^Starting Weft with id shop\. HTTP Port: \d+\. gRPC Port: \d+$/m);
  expect(logs).toMatch(/^== APP == id=shop http=\d+ grpc=\d+ metrics=\d+ port=$/m);
  expect(logs).toMatch(/^== APP == on stderr$/m);
  expect(logs).toMatch(/^== APP == no line end$/m);
  expect(logs).toMatch(/^time=.* level=info msg="dapr initialized/m);
  expect(logs).not.toContain("\u001b[");
  // Without an app port the app may use the sidecar from its first line on.
  expect(logs.indexOf("HTTP API on port")).toBeLessThan(logs.indexOf("== APP =="));
  expect(logs).toContain("The App process exited with error code: exit status 7");
  expect(code).toBe(7);
  await here.empty();
});

test("starts an app with a port, calls it through the sidecar, and ends both at Ctrl-C with 0", async () => {
  await using here = await place();
  const running = await here.run(["-a", "echo", "-p", String(await freePort())], echo);
  const pids = await pidsOf(running);
  const [, port = ""] = await says(running, /HTTP Port: (\d+)/);
  const answer = await fetch(`http://127.0.0.1:${port}/v1.0/invoke/echo/method/who`);
  expect(await answer.text()).toBe(String(pids.app));
  expect(pids.cli).toBe(running.pid);
  running.signal("SIGINT");
  expect(await running.exited).toBe(0);
  expect(running.logs()).toMatch(
    /Exited App successfully[^]*Daprd shutdown gracefully[^]*Exited Weft successfully/,
  );
  expect([pids.app, pids.sidecar].filter(isRunning)).toEqual([]);
  await here.empty();
});

test("kills an app that does not end, with its children, and exits with 1", async () => {
  await using here = await place();
  const stubborn = `trap "" TERM; sleep 1000 & echo "child $!"; while :; do sleep 1; done`;
  const running = await here.run(["-a", "stubborn"], ["/bin/sh", "-c", stubborn]);
  const [, child = ""] = await says(running, /child (\d+)/);
  expect(isRunning(Number(child))).toBe(true);
  expect(await running.stop(30_000)).toBe(1);
  expect(running.logs()).toContain("the app did not end within 5 s and was killed");
  expect(isRunning(Number(child))).toBe(false);
  await here.empty();
});

test("ends at once at a second signal", async () => {
  await using here = await place();
  const running = await here.run(
    ["-a", "stubborn"],
    ["/bin/sh", "-c", `trap "" TERM; echo deaf; while :; do sleep 1; done`],
  );
  await says(running, /== APP == deaf/);
  running.signal("SIGTERM");
  await says(running, /shutting down/);
  // What comes within half a second of a signal is an echo of it. One more, since a third one ends weft itself.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  running.signal("SIGTERM");
  await says(running, /second signal/);
  expect(await running.exited).toBe(1);
  expect(running.logs()).toContain("the app was killed");
  await here.empty();
});

test("shows a reader that rests the last lines of an app that has ended", async () => {
  await using here = await place();
  const main = join(checkout, "src/cli/main.ts");
  const args = [main, "run", "--", "/bin/sh", "-c", "seq 1 60000; exit 3"];
  await using reader = await here.start("test/integration/cli/slow-reader.mjs", args);
  await says(reader, /exit 3, == APP == 60000/);
  await here.empty();
});

test("ends what the app leaves behind", async () => {
  await using here = await place();
  const { code, logs } = await here.weft(
    "run",
    "--",
    "/bin/sh",
    "-c",
    `sleep 1000 & echo "child $!"; exit 3`,
  );
  expect(code).toBe(3);
  expect(logs).not.toContain("killed");
  expect(isRunning(Number(/child (\d+)/.exec(logs)?.[1]))).toBe(false);
  await here.empty();
});

test("stops the app and tells the last words when the sidecar dies", async () => {
  await using here = await place();
  const running = await here.run(["-a", "echo", "-p", String(await freePort())], echo);
  const { app, sidecar } = await pidsOf(running);
  process.kill(sidecar, "SIGKILL");
  expect(await running.exited).toBe(1);
  expect(running.logs()).toMatch(/the sidecar ended by itself by SIGKILL\. Its last words:\n {4}time=/);
  expect(isRunning(app)).toBe(false);
  await here.empty();
});

test("shows why a sidecar cannot start, and does not leave the app alone", async () => {
  await using here = await place();
  mkdirSync(here.join("resources"));
  writeFileSync(
    here.join("resources", "store.yaml"),
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec: {type: state.nope, version: v1}\n",
  );
  const { code, logs } = await here.weft(
    "run",
    "-d",
    here.join("resources"),
    "-p",
    String(await freePort()),
    "--",
    ...echo,
  );
  expect(code).toBe(1);
  expect(logs).toMatch(/Its last words:\n( {4}.*\n)* {4}.*state\.nope/);
  expect(existsSync(here.join("home", "components"))).toBe(false);
  await here.empty();
});

test("ends with 0 when the app tells its sidecar to shut down and ends too", async () => {
  await using here = await place();
  const script = `const url = "http://127.0.0.1:" + process.env.DAPR_HTTP_PORT + "/v1.0/shutdown";
    fetch(url, { method: "POST" }).then(() => setTimeout(() => console.log("work done"), 1000))`;
  const { code, logs } = await here.weft("run", "--", nodeBinary(), "-e", script);
  expect(logs).toContain("== APP == work done");
  expect(code).toBe(0);
  await here.empty();
});

test("leaves nothing behind when it is killed itself", async () => {
  await using here = await place();
  const running = await here.run(["-a", "echo", "-p", String(await freePort())], echo);
  const { app, sidecar } = await pidsOf(running);
  await running.kill("SIGKILL");
  await eventually(() => !isRunning(app) && !isRunning(sidecar), { timeoutMs: 30_000 });
  await here.empty();
});

test("ends when the reader of its output has gone", async () => {
  await using here = await place();
  const weft = `"${nodeBinary()}" "${new URL("../../../src/cli/main.ts", import.meta.url).pathname}"`;
  const chatty = "while :; do echo chatter; sleep 0.1; done";
  const pipeline = `${weft} run -a chatty -- /bin/sh -c '${chatty}' 2>&1 | head -n 3`;
  const shell = await here.start("test/integration/cli/shell.mjs", [pipeline]);
  expect(await shell.exited).toBe(0);
  await here.empty();
});

test.each([
  [
    ["run", "--", "no-such-command"],
    1,
    /cannot start "no-such-command": there is no such command on the PATH/,
  ],
  [["run", "--", "./no-such-file"], 1, /cannot start \.\/no-such-file: there is no such file/],
  [["run", "--", "/"], 1, /cannot start \/: it is a folder/],
  [["run", "--app-prot", "3000"], 255, /unknown option '--app-prot'\n\(Did you mean --app-port\?\)/],
  [["run", "--app-port", "many", "--", "true"], 255, /error parsing app-port/],
  [["run", "-f", "dapr.yaml"], 255, /start each app with a `weft run` of its own/],
  [["stat"], 255, /unknown command 'stat'\n\(Did you mean status\?\)/],
  [["status", "-o", "xml"], 255, /Allowed choices are table, json/],
])("%j ends with %i and a clear word", async (args, wanted, words) => {
  await using here = await place();
  const { code, logs } = await here.weft(...args);
  expect(logs).toMatch(words);
  expect(code).toBe(wanted);
  expect(existsSync(here.home)).toBe(false);
  expect(here.left()).toEqual([]);
});

test("makes the default components once and keeps what the user changes", async () => {
  await using here = await place();
  const run = async (): Promise<string> => {
    const script = `fetch("http://127.0.0.1:" + process.env.DAPR_HTTP_PORT + "/v1.0/metadata").then(async (answer) =>
      console.log((await answer.json()).components.map((it) => it.name + ":" + it.type).sort().join()))`;
    const { code, logs } = await here.weft("run", "--", nodeBinary(), "-e", script);
    expect(code).toBe(0);
    return /^== APP == (.*)$/m.exec(logs)?.[1] ?? logs;
  };
  expect(await run()).toBe("pubsub:pubsub.nats,statestore:state.nats");
  const folder = here.join("home", "components");
  expect(readdirSync(folder).toSorted()).toEqual(["pubsub.yaml", "statestore.yaml"]);
  const file = here.join("home", "components", "statestore.yaml");
  writeFileSync(file, readFileSync(file, "utf8").replace("state.nats", "state.in-memory"));
  expect(await run()).toBe("pubsub:pubsub.nats,statestore:state.in-memory");
});

test("runs a sidecar alone, on a socket too", async () => {
  await using here = await place();
  const running = await here.start("src/cli/main.ts", ["run", "-a", "alone", "-u", here.path]);
  await says(running, /You're up and running! The sidecar's logs will appear here/);
  expect(existsSync(here.join("dapr-alone-http.socket"))).toBe(true);
  expect(await running.stop()).toBe(0);
  await here.empty();
});

test("prints help and version", async () => {
  await using here = await place();
  const help = await here.weft("run", "--help");
  expect(help).toMatchObject({
    code: 0,
    logs: expect.stringMatching(/-a, --app-id[^]*--nats-url[^]*Examples:/),
  });
  expect(await here.weft()).toMatchObject({ code: 0, logs: expect.stringContaining("run [options]") });
  const version = await here.weft("version", "-o", "json");
  expect(JSON.parse(version.logs)).toEqual({ "Cli version": "0.1.0", "Runtime version": "0.1.0" });
  expect((await here.weft("--version")).logs).toBe("CLI version: 0.1.0\nRuntime version: 0.1.0\n");
});
