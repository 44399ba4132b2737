// Access control of the callee: each rule of the contract with real sidecars that call each other through NATS.
import { headers as natsHeaders } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HTTPExtension_Verb as Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  grpcClient,
  GrpcError,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import type { App, GrpcApp, Nats, Sidecar } from "../../kit/index.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let grpcApp: GrpcApp;
/** Callers by their app id. */
const callers = new Map<string, Sidecar>();

const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: acl}\nspec:";

function configuration(accessControl: string): string {
  return `${head}\n  accessControl:\n${accessControl}`;
}

const policies = `
    policies:
    - appId: alice
      namespace: default
      trustDomain: public
      defaultAction: deny
      operations:
      - {name: /open, httpVerb: ["*"], action: allow}
      - {name: Read/*, httpVerb: [GET, HEAD], action: allow}
      - {name: /deep/**, httpVerb: [get], action: allow}
      - {name: /deep/**, httpVerb: [GET], action: allow}
      - {name: /no-verb, action: allow}
      - {name: /mixed, httpVerb: [GET], action: Allow}
      - {name: /shouting, httpVerb: ["*"], action: ALLOW}
      - {name: /pkg.Svc/Call, httpVerb: [POST], action: allow}
    - appId: bob
      namespace: default
      trustDomain: public
      operations:
      - {name: /closed, httpVerb: ["*"], action: deny}
      - {name: /closed/but/open, httpVerb: ["*"], action: allow}
    - appId: carol
      namespace: default
      trustDomain: elsewhere
      defaultAction: deny
    - appId: dave
      namespace: prod
      trustDomain: public
      defaultAction: deny
`;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: () => ({ body: "the app" }) }));
  grpcApp = stack.use(await startGrpcApp());
  const open = configuration(policies);
  const shut = configuration(`    defaultAction: deny${policies}`);
  stack.use(await startSidecar({ appId: "open", appPort: app.port, nats, config: open }));
  stack.use(await startSidecar({ appId: "shut", appPort: app.port, nats, config: shut }));
  const grpc = { appPort: grpcApp.port, appProtocol: "grpc", nats, config: open };
  stack.use(await startSidecar({ appId: "grpc", ...grpc }));
  for (const appId of ["alice", "bob", "carol", "dave", "eve"])
    callers.set(appId, stack.use(await startSidecar({ appId, nats })));
});

afterAll(() => stack.disposeAsync());

/** Status of a call from one app to another, e.g. `("alice", "open", "GET /read/1")`. */
async function status(from: string, to: string, request: string): Promise<number> {
  const [method = "GET", path = "/"] = request.split(" ");
  return (await callers.get(from)!.http(`/v1.0/invoke/${to}/method${path}`, { method })).status;
}

type Row = readonly [rule: string, from: string, to: string, request: string, status: number];

const table: readonly Row[] = [
  ["1: no policy for the caller, the global default is to allow", "eve", "open", "GET /x", 200],
  ["1: no policy for the caller, the global default is to deny", "eve", "shut", "GET /x", 403],
  ["1: a policy of the same app in another namespace", "dave", "open", "GET /x", 200],
  ["1: the same where the default denies", "dave", "shut", "GET /x", 403],
  ["1: a policy of another trust domain", "carol", "open", "GET /x", 200],
  ["1: the same where the default denies", "carol", "shut", "GET /x", 403],
  ["2: the policy's own default", "alice", "open", "GET /elsewhere", 403],
  ["2: a policy without a default takes the global one, allow", "bob", "open", "GET /elsewhere", 200],
  ["2: a policy without a default takes the global one, deny", "bob", "shut", "GET /elsewhere", 403],
  ["3: an operation for all verbs", "alice", "shut", "PATCH /open", 200],
  ["3: what is below a named segment belongs to it", "alice", "shut", "POST /open/a/b", 200],
  ["3: a name is no prefix of a longer word", "alice", "shut", "GET /opener", 403],
  ["3: no leading slash and other letter case", "alice", "shut", "GET /READ/Book", 200],
  ["3: one star is one segment at most", "alice", "shut", "GET /read/book/page", 403],
  ["3: or none", "alice", "shut", "GET /read", 200],
  ["3: another listed verb", "alice", "shut", "HEAD /read/book", 200],
  ["3: a verb that is not listed leaves the default", "alice", "shut", "POST /read/book", 403],
  [
    "3: verbs are written in upper case, and the first declaration counts",
    "alice",
    "shut",
    "GET /deep/a",
    403,
  ],
  ["3: an operation without verbs has no effect", "alice", "shut", "GET /no-verb", 403],
  ["3: the action in any letter case", "alice", "shut", "GET /mixed", 200],
  ["3: the action in any letter case", "alice", "shut", "GET /shouting", 200],
  ["3: an operation may close", "bob", "open", "GET /closed", 403],
  ["3: a shorter operation hides longer ones", "bob", "open", "GET /closed/but/open", 403],
  ["3: escapes do not open a way around", "bob", "open", "GET /%63losed", 403],
  ["3: nor do dot segments", "bob", "open", "GET /x/..%2Fclosed", 403],
];

describe("an HTTP app", () => {
  test.for(table)("%s: %s calls %s, %s: %s", async ([, from, to, request, wanted]) => {
    const before = app.requests.length;
    expect(await status(from, to, request)).toBe(wanted);
    expect(app.requests.length - before).toBe(wanted === 200 ? 1 : 0);
  });

  test("the words of a refusal", async () => {
    const answer = await callers.get("alice")!.get("/v1.0/invoke/shut/method/a/b?q=1");
    expect(answer.status).toBe(403);
    expect(answer.json()).toEqual({
      errorCode: "ERR_DIRECT_INVOKE",
      message:
        "failed to invoke, id: shut, err: rpc error: code = PermissionDenied desc = access control policy has denied " +
        "access to id: spiffe://public/ns/default/alice operation: a/b verb: GET",
    });
  });

  test("over gRPC a refusal is Internal", async () => {
    using client = grpcClient(callers.get("alice")!.grpcPort);
    const httpExtension = { verb: Verb.DELETE, querystring: "" };
    const message = { method: "a/b", httpExtension };
    const error = await client
      .unary(Dapr.method.invokeService, { id: "shut", message })
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(GrpcError);
    const { code, details } = error as GrpcError;
    expect(code).toBe(13);
    expect(details).toMatch(
      /^failed to invoke, id: shut, err: rpc error: code = PermissionDenied desc = .* operation: a\/b verb: DELETE$/,
    );
    const allowed = { method: "open", httpExtension };
    await client.unary(Dapr.method.invokeService, { id: "shut", message: allowed });
  });

  test("a sidecar may call its own app", async () => {
    await using self = await startSidecar({
      appId: "self",
      appPort: app.port,
      nats,
      config: configuration("    defaultAction: deny\n"),
    });
    expect((await self.get("/v1.0/invoke/self/method/x")).status).toBe(200);
  });

  test("a plain NATS program has an identity as well", async () => {
    const connection = await nats.connect();
    const headers = natsHeaders();
    headers.set("Weft-Path", "/open");
    const options = { headers, timeout: 5_000 };
    const allowed = await connection.request("weft.default.call.shut.default.alice", "", options);
    expect(allowed.headers?.get("Weft-Status")).toBe("200");
    const refused = await connection.request("weft.default.call.shut.default.mallory", "", options);
    expect(refused.headers?.get("Weft-Status")).toBe("403");
    expect(refused.headers?.get("Weft-Error")).toBe("denied");
    expect(refused.string()).toMatch(/denied access to id: spiffe:\/\/public\/ns\/default\/mallory/);
  });
});

describe("a gRPC app", () => {
  async function invoke(from: string, method: string): Promise<number> {
    using client = grpcClient(callers.get(from)!.grpcPort);
    const message = { method, httpExtension: { verb: Verb.GET, querystring: "" } };
    return await client.unary(Dapr.method.invokeService, { id: "grpc", message }).then(
      () => 0,
      (error: GrpcError) => error.code,
    );
  }

  test("the action of the operation counts, without verbs and in its letter case", async () => {
    expect(await invoke("alice", "no-verb")).toBe(0);
    expect(await invoke("alice", "/no-verb")).toBe(0);
    expect(await invoke("alice", "open")).toBe(0);
    expect(await invoke("alice", "OPEN")).toBe(13);
    expect(await invoke("alice", "read/x")).toBe(13);
    expect(await invoke("alice", "Read/x")).toBe(0);
  });

  test("the words of a refusal say no verb", async () => {
    const answer = await callers.get("alice")!.get("/v1.0/invoke/grpc/method/elsewhere");
    expect(answer.status).toBe(403);
    expect(answer.text).toContain("id: spiffe://public/ns/default/alice operation: elsewhere verb: NONE");
  });
});

describe("calls of the app's own gRPC services", () => {
  async function call(sidecar: Sidecar, to: string, path: string): Promise<GrpcError> {
    using client = grpcClient(sidecar.grpcPort);
    const answer = await client
      .raw(path, Buffer.alloc(0), { metadata: { "dapr-app-id": to } })
      .catch((thrown: unknown) => thrown);
    if (!(answer instanceof GrpcError)) throw new Error(`${path} has no such service, and yet an answer`);
    return answer;
  }

  test("are asked about by their full name, in its letter case", async () => {
    const alice = callers.get("alice")!;
    // The app has no such service: its own answer shows that the call got there.
    expect((await call(alice, "grpc", "/pkg.Svc/Call")).code).toBe(12);
    const refused = await call(alice, "grpc", "/pkg.Svc/Other");
    expect(refused.code).toBe(7);
    expect(refused.details).toBe(
      "access control policy has denied access to id: spiffe://public/ns/default/alice " +
        "operation: /pkg.Svc/Other verb: NONE",
    );
    expect((await call(alice, "grpc", "/pkg.svc/call")).code).toBe(7);
  });

  test("also those of an app to itself", async () => {
    const config = configuration("    defaultAction: deny\n");
    const grpc = { appPort: grpcApp.port, appProtocol: "grpc", nats, config };
    await using self = await startSidecar({ appId: "selfish", ...grpc });
    expect((await call(self, "selfish", "/pkg.Svc/Call")).code).toBe(7);
  });
});

test("every received call is counted by its caller and by what decided", async () => {
  await using callee = await startSidecar({
    appId: "counted",
    appPort: app.port,
    nats,
    config: configuration(policies),
  });
  await status("alice", "counted", "GET /open");
  await status("alice", "counted", "GET /x");
  await status("bob", "counted", "GET /closed");
  await status("dave", "counted", "GET /x");
  await status("dave", "counted", "GET /y");
  await eventually(async () => {
    const page = await (await fetch(`http://127.0.0.1:${callee.metricsPort}/metrics`)).text();
    const series = page.split("\n").filter((line) => line.startsWith("dapr_runtime_acl_"));
    const line = (name: string, caller: string, count: number): string =>
      `dapr_runtime_acl_${name}_total{app_id="${caller}",namespace="default",trustDomain="public"} ${count}`;
    expect(series.sort()).toEqual(
      [
        line("app_policy_action_allowed", "alice", 1),
        line("app_policy_action_blocked", "alice", 1),
        line("global_policy_action_blocked", "bob", 1),
        line("global_policy_action_allowed", "dave", 2),
      ].sort(),
    );
  });
});

test("a policy that cannot be used ends the start and says where it stands", async () => {
  const config = configuration("    policies:\n    - appId: a\n      namespace: default\n");
  await using sidecar = await startSidecar({ appId: "bad", nats, config, wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(/config\.yaml:7:.*policies\[0\]\.trustDomain is missing, write for example/);
});
