// Calls of output bindings that no well-behaved app would make, over both protocols, and answers of apps to input
// bindings that mean nothing. The rows are docs/hostile-events.md.
import { access } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  type GrpcClient,
  grpcClient,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { binding } from "../bindings/resources.ts";
import { expectTable, grpcAnswer, httpAnswer } from "./page.ts";

const stack = new AsyncDisposableStack();
const folder = stack.use(tempDir("files"));
let server: App;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  const nats = stack.use(await startNats());
  server = stack.use(await startApp({ fallback: () => ({ status: 200, body: "fine" }) }));
  sidecar = stack.use(
    await startSidecar({
      appId: "shop",
      nats,
      flags: ["--max-body-size=256Ki"],
      resources: {
        "web.yaml": binding("web", "bindings.http", { url: `${server.url}/base` }),
        "files.yaml": binding("files", "bindings.localstorage", { rootPath: folder.join("root") }),
        "in.yaml": binding("ticks", "bindings.cron", { schedule: "@every 1000h" }),
        "half.yaml": binding("half", "bindings.http", { url: server.url, direction: "input" }),
      },
    }),
  );
  grpc = stack.use(grpcClient(sidecar.grpcPort));
});
afterAll(() => stack.disposeAsync());

type Call = {
  readonly input: string;
  readonly name?: string;
  readonly operation?: string;
  readonly data?: unknown;
  readonly metadata?: Readonly<Record<string, string>>;
  /** The whole body; such rows say nothing over gRPC. */
  readonly raw?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly only?: "http";
};

const deep = "[".repeat(20_000) + "]".repeat(20_000);

const calls: readonly Call[] = [
  { input: "a binding that is not there", name: "nope" },
  { input: "an empty name", name: "" },
  { input: "a name with a slash", name: "a/b" },
  { input: "a binding that is input only", name: "ticks" },
  { input: "a binding whose `direction` is `input`", name: "half" },
  { input: "no operation", operation: "" },
  { input: "an unknown operation", operation: "DROP TABLE" },
  { input: "an operation in another case", operation: "Create" },
  { input: "nothing", raw: "" },
  { input: "broken JSON", raw: '{"operation":' },
  { input: "JSON and more text", raw: '{"operation":"get"} x' },
  { input: "`null`", raw: "null" },
  { input: "a list", raw: "[]" },
  { input: "an operation that is a number", raw: '{"operation":1}' },
  { input: "metadata that are no texts", raw: '{"operation":"get","metadata":{"a":1}}' },
  { input: "metadata that are a list", raw: '{"operation":"get","metadata":[]}' },
  { input: "data of 20,000 levels", raw: `{"operation":"create","data":${deep}}` },
  { input: "a member twice", raw: '{"operation":"nope","operation":"get"}' },
  { input: "above `--max-body-size` (256 Ki here)", operation: "create", data: "x".repeat(300_000) },
  { input: "http: a path that climbs: `/../../etc`", metadata: { path: "/../../etc" } },
  { input: "http: a path to another server: `//example.com/x`", metadata: { path: "//example.com/x" } },
  { input: "http: a path with line breaks", metadata: { path: "/a\r\nX-Injected: yes" } },
  { input: "http: a header with line breaks", metadata: { "X-Note": "a\r\nX-Injected: yes" } },
  { input: "http: a name of a header with blanks", metadata: { "X Note": "v" } },
  {
    input: "http: `Host` and `Content-Length` as headers",
    metadata: { Host: "evil", "Content-Length": "3" },
  },
  { input: "http: `errorIfNot2XX=maybe`", metadata: { errorIfNot2XX: "maybe" } },
  { input: "a `traceparent` that is none", headers: { traceparent: "x" }, only: "http" },
  { input: "a `baggage` that is none", headers: { baggage: "=;;,%%" }, only: "http" },
  {
    input: "localstorage: a file that climbs: `../../out`",
    name: "files",
    operation: "create",
    metadata: { fileName: "../../out" },
  },
  {
    input: "localstorage: an absolute file",
    name: "files",
    operation: "create",
    metadata: { fileName: "/etc/passwd" },
  },
  {
    input: "localstorage: NUL in the name",
    name: "files",
    operation: "create",
    metadata: { fileName: "a\u0000b" },
  },
  {
    input: "localstorage: a name of 300 characters",
    name: "files",
    operation: "create",
    metadata: { fileName: "n".repeat(300) },
  },
  { input: "localstorage: `get` without a name", name: "files", operation: "get" },
  {
    input: "localstorage: `get` of what is not there",
    name: "files",
    operation: "get",
    metadata: { fileName: "nothing" },
  },
  { input: "localstorage: `get` of a folder", name: "files", operation: "get", metadata: { fileName: "." } },
  {
    input: "localstorage: `delete` of the folder itself",
    name: "files",
    operation: "delete",
    metadata: { fileName: "." },
  },
];

/** Headers that are not in each request. */
function ownHeaders(raw: readonly string[]): string {
  const usual = /^(host|connection|accept|content-type|user-agent)$/i;
  const own = raw.flatMap((name, at) => {
    if (at % 2 === 1 || (usual.test(name) && raw[at + 1] !== "evil")) return [];
    return [`${name}: ${raw[at + 1]}`];
  });
  return own.length === 0 ? "" : `, ${own.join(", ")}`;
}

test("output bindings", async () => {
  const rows: string[][] = [];
  for (const {
    input,
    name = "web",
    operation = "get",
    data = "x",
    metadata = {},
    raw,
    headers = {},
    only,
  } of calls) {
    const before = server.requests.length;
    const reply = await sidecar.http(`/v1.0/bindings/${encodeURIComponent(name)}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: raw ?? JSON.stringify({ operation, data, metadata }),
    });
    const viaGrpc = (): Promise<string> =>
      grpcAnswer(
        grpc.unary(Dapr.method.invokeBinding, {
          name,
          operation,
          data: Buffer.from(JSON.stringify(data)),
          metadata: { ...metadata },
        }),
      );
    const [request] = server.requests.slice(before);
    const got =
      request === undefined ? "" : `${request.method} ${request.path}${ownHeaders(request.rawHeaders)}`;
    rows.push([
      input,
      httpAnswer(reply),
      raw === undefined && only === undefined ? await viaGrpc() : "-",
      got,
    ]);
  }
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  expect(sidecar.logs()).not.toMatch(/unhandled|TypeError|RangeError|at .*\.ts:\d+/);
  for (const request of server.requests) expect(request.rawHeaders).not.toContain("X-Injected");
  for (const outside of ["out", "../out", "root/../out"])
    await expect(access(folder.join(outside))).rejects.toThrow("ENOENT");
  expectTable("Output bindings", ["Input", "HTTP", "gRPC", "The server gets"], rows);
});
