// middleware.http.wasm with a guest written in Go: everything that the ABI lets it see and change, traps, and its log.
import { createServer } from "node:http";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startApp, startNats, startSidecar, tempDir } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { goWasm } from "../../kit/toolchains.ts";
import { middleware, pipelines } from "./pipelines.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let file: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  file = await goWasm(join(import.meta.dirname, "guest"));
  nats = stack.use(await startNats());
  app = stack.use(
    await startApp({
      fallback: ({ method, path, query, body }) => ({
        body: `${method} ${path}?${query} ${body.toString()}`,
      }),
    }),
  );
}, 300_000);

afterAll(() => stack.disposeAsync());

function resources(metadata: Readonly<Record<string, string>>) {
  return { "guest.yaml": middleware("guest", "wasm", metadata) };
}

describe("before the API", () => {
  let sidecar: Sidecar;

  beforeAll(async () => {
    sidecar = stack.use(
      await startSidecar({
        appId: "wasm",
        appPort: app.port,
        nats,
        resources: resources({ url: pathToFileURL(file).href, guestConfig: "as configured" }),
        config: pipelines({ http: ["guest wasm"] }),
        flags: ["--log-level=debug"],
      }),
    );
  });

  const call = "/v1.0/invoke/wasm/method";

  test("a guest answers by itself, with its configuration at hand", async () => {
    const answer = await sidecar.post(`${call}/deny`, "x");
    expect(answer).toMatchObject({ status: 403, text: "POST is denied" });
    expect(answer.headers).toMatchObject({
      "x-guest": "as configured",
      "content-type": "text/plain; charset=utf-8",
    });
    expect(app.requestsTo("/deny")).toEqual([]);
  });

  test("another address", async () => {
    expect((await sidecar.get("/old?a=1")).text).toBe("GET /new?was=a=1 ");
  });

  test("the body of the request, read in pieces and replaced", async () => {
    expect((await sidecar.post(`${call}/body`, "twelve bytes")).text).toBe("POST /body? [twelve bytes]");
    expect((await sidecar.post(`${call}/body`, "")).text).toBe("POST /body? []");
  });

  test("headers of the request and of the answer; the context comes back", async () => {
    const path = `${call}/headers`;
    const answer = await sidecar.get(path, { "x-many": ["a", "b"], "x-secret": "s" });
    const { headers } = app.requestsTo("/headers")[0]!;
    expect(headers["x-many"]).toBe("a, b, one");
    expect(headers["x-seen"]).toBe("a;b;one;|true");
    expect(headers["x-secret"]).toBeUndefined();
    expect(answer.headers).toMatchObject({ "x-early": "yes", "x-context": `${path.length} 0 200` });
  });

  test("the answer, when the guest asks for it whole", async () => {
    app.on("/buffered", () => ({ status: 202, body: "from the app" }));
    const answer = await sidecar.get(`${call}/buffered`);
    expect(answer).toMatchObject({ status: 201, text: "FROM THE APP" });
    expect(answer.headers["x-context"]).toMatch(/ 202$/);
  });

  test("requests that overlap keep their own contexts", async () => {
    const paths = Array.from({ length: 40 }, (_, i) => `${call}/${"x".repeat(i + 1)}`);
    const answers = await Promise.all(paths.map((path) => sidecar.get(path)));
    const contexts = answers.map(({ headers }) => headers["x-context"]);
    expect(contexts).toEqual(paths.map((path) => `${path.length} 0 200`));
  });

  test("the time of day", async () => {
    const { headers } = await sidecar.get(`${call}/clock`);
    expect(Math.abs(Date.parse(String(headers["x-clock"])) - Date.now())).toBeLessThan(60_000);
  });

  test("a guest that traps costs its request alone", async () => {
    const answers = await Promise.all([sidecar.get(`${call}/trap`), sidecar.get(`${call}/a`)]);
    expect(answers[0]).toMatchObject({ status: 500, text: "Internal Server Error" });
    expect(answers[1].status).toBe(200);
    expect((await sidecar.get(`${call}/b`)).text).toBe("GET /b? ");
    await sidecar.logged(/middleware guest failed/);
  });

  test("what it logs and prints is in the sidecar's log", async () => {
    await sidecar.get(`${call}/print`);
    await sidecar.logged(/level=warning msg="logged by the guest".*middleware.http.wasm/);
    await sidecar.logged(/level=debug msg="printed by the guest"/);
  });
});

test("towards the app, fetched over HTTP, in the strict sandbox of the Configuration", async () => {
  const program = await readFile(file);
  const server = createServer((_incoming, outgoing) => void outgoing.end(program));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await using sidecar = await startSidecar({
    appId: "outward",
    appPort: app.port,
    nats,
    resources: resources({ url: `http://127.0.0.1:${port}/guest.wasm` }),
    config: `${pipelines({ app: ["guest wasm"] })}  wasm:\n    strictSandbox: true\n`,
  });
  server.close();
  server.closeAllConnections();
  const answer = await sidecar.post("/v1.0/invoke/outward/method/body", "text");
  expect(answer.text).toBe("POST /body? [text]");
  expect(answer.headers["x-early"]).toBe("yes");
  // Its clock begins with 2022 in every run.
  const { headers } = await sidecar.get("/v1.0/invoke/outward/method/clock");
  expect(headers["x-clock"]).toMatch(/^2022-01-01T00:00/);
});

test.each([
  ["oci://registry/image", /neither a file:\/\/ nor an http\(s\):\/\/ address; images of OCI registries/],
  ["file:///nowhere/at/all.wasm", /ENOENT.*\/nowhere\/at\/all\.wasm/],
  ["file://{empty}", /does not export function handle_request and function handle_response/],
  ["file://{text}", /WebAssembly.compile\(\)/],
])("%s is refused", async (url, message) => {
  await using folder = tempDir("wasm");
  const empty = folder.join("empty.wasm");
  const text = folder.join("text.wasm");
  // The smallest module there is: its magic number and version.
  await writeFile(empty, Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
  await writeFile(text, "not a program");
  const place = url.replace("{empty}", empty).replace("{text}", text);
  await using sidecar = await startSidecar({
    appId: "bad",
    nats,
    resources: resources({ url: place }),
    wait: "none",
  });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(message);
});
