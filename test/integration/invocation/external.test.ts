// Calls to servers outside the mesh: HTTPEndpoint resources and plain URLs, over HTTP and gRPC, against real HTTP and
// HTTPS servers with certificates made for the run.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { certificateAuthority, type Authority } from "../../kit/certificates.ts";
import { eventually, freePort, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, GrpcClient, Nats, Sidecar } from "../../kit/index.ts";
import { startOutside, type Outside } from "../../kit/outside.ts";

let stack: AsyncDisposableStack;
let authority: Authority;
let plain: Outside;
let secure: Outside;
let mutual: Outside;
let stranger: Outside;
let app: App;
let nats: Nats;
let sidecar: Sidecar;
let client: GrpcClient;

/** Lines of a PEM text as a YAML block scalar. */
function block(pem: string, indent: number): string {
  const pad = " ".repeat(indent);
  return `|\n${pem
    .trim()
    .split("\n")
    .map((line) => pad + line)
    .join("\n")}`;
}

function endpoint(name: string, spec: string, rest = ""): string {
  return `apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata:\n  name: ${name}\nspec:\n${spec}${rest}---\n`;
}

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  authority = stack.use(await certificateAuthority());
  const other = stack.use(await certificateAuthority("somebody else"));
  const server = await authority.issue("server", ["localhost", "127.0.0.1"]);
  const me = await authority.issue("me", ["me.test"]);
  const foreign = await other.issue("stranger", ["localhost", "127.0.0.1"]);
  const keys = { cert: server.certificate, key: server.privateKey };
  plain = stack.use(await startOutside());
  secure = stack.use(await startOutside(keys));
  mutual = stack.use(
    await startOutside({ ...keys, ca: authority.root, requestCert: true, rejectUnauthorized: true }),
  );
  stranger = stack.use(await startOutside({ cert: foreign.certificate, key: foreign.privateKey }));
  app = stack.use(await startApp({ fallback: () => ({ body: "the app" }) }));
  stack.use(await startSidecar({ appId: "both", appPort: app.port, nats }));
  const resources = {
    "endpoints.yaml": [
      endpoint("both", `  baseUrl: http://127.0.0.1:${plain.port}\n`),
      endpoint(
        "shop",
        `  baseUrl: http://127.0.0.1:${plain.port}/api/
  headers:
  - name: Accept-Language
    value: en-GB
  - name: X-Key
    envRef: SHOP_KEY
  - name: X-Denied
    envRef: DAPR_API_TOKEN
`,
      ),
      endpoint(
        "secure",
        [
          `  baseUrl: https://localhost:${secure.port}\n  clientTLS:\n`,
          `    rootCA:\n      value: ${block(authority.root, 8)}\n`,
        ].join(""),
      ),
      endpoint(
        "roots",
        `  baseUrl: https://127.0.0.1:${secure.port}\n  clientTLS:\n    renegotiation: OnceAsClient\n`,
      ),
      endpoint(
        "mutual",
        `  baseUrl: https://localhost:${mutual.port}
  clientTLS:
    renegotiation: Never
    certificate:
      value: ${block(me.certificate, 8)}
    privateKey:
      value: ${block(me.privateKey, 8)}
`,
      ),
      endpoint("stranger", `  baseUrl: https://localhost:${stranger.port}\n`),
      endpoint("elsewhere", `  baseUrl: http://127.0.0.1:${plain.port}\n`, "scopes:\n- another-app\n"),
      endpoint("down", `  baseUrl: http://127.0.0.1:${await freePort()}\n`),
    ].join(""),
  };
  const env = {
    SSL_CERT_FILE: authority.rootFile,
    SHOP_KEY: "from the environment",
    APP_API_TOKEN: "for the app alone",
  };
  sidecar = stack.use(await startSidecar({ appId: "caller", appPort: app.port, nats, resources, env }));
  client = stack.use(grpcClient(sidecar.grpcPort));
});

afterAll(() => stack.disposeAsync());

beforeEach(() => {
  for (const server of [plain, secure, mutual, stranger]) {
    server.requests.length = 0;
    server.answer = ({ method, url }) => ({ body: `${method} ${url}` });
  }
});

const invoke = "/v1.0/invoke";

function lastOf(server: Outside): Outside["requests"][number] {
  return server.requests.at(-1)!;
}

describe("a named endpoint", () => {
  test("counts among the HTTP calls of the sidecar", async () => {
    plain.answer = () => ({ status: 418 });
    await sidecar.post(`${invoke}/shop/method/counted`, "12345");
    await eventually(async () => {
      const page = await (await fetch(`http://127.0.0.1:${sidecar.metricsPort}/`)).text();
      expect(page).toContain(
        'dapr_http_client_completed_count{app_id="caller",method="POST",path="counted",status="418"} 1\n',
      );
      expect(page).toContain(
        'dapr_http_client_sent_bytes_sum{app_id="caller",method="POST",path="counted",status=""} 5\n',
      );
    });
  });

  test("wins over an app of its name", async () => {
    const answer = await sidecar.get(`${invoke}/both/method/a/b?q=%20&q=2`);
    expect(answer).toMatchObject({ status: 200, text: "GET /a/b?q=%20&q=2" });
    expect(app.requests).toHaveLength(0);
  });

  test("is called at its base, a slash and the method, with its own headers over the caller's", async () => {
    const answer = await sidecar.post(`${invoke}/shop/method/orders/1`, "body", {
      "accept-language": "fr",
      "x-key": "forged",
      "x-mine": "1",
      "content-type": "text/x",
    });
    expect(answer.text).toBe("POST /api//orders/1");
    expect(lastOf(plain)).toMatchObject({ method: "POST", body: "body" });
    const { headers } = lastOf(plain);
    expect(headers).toMatchObject({
      "accept-language": "en-GB",
      "x-key": "from the environment",
      "x-mine": "1",
      "content-type": "text/x",
    });
    expect(headers).toMatchObject({
      host: `127.0.0.1:${plain.port}`,
      "x-denied": "",
      "user-agent": expect.any(String),
    });
    expect(lastOf(plain).rawHeaders.filter((it) => it.toLowerCase() === "x-key")).toHaveLength(1);
    await sidecar.logged(
      /endpoints\.yaml:\d+:\d+: spec\.headers\[2\] refers to .* variable that is not allowed: DAPR_API_TOKEN/,
    );
  });

  test("gets no header of the mesh and no token of the app", async () => {
    await sidecar.get(`${invoke}/both/method/x`, {
      "dapr-caller-app-id": "forged",
      "x-forwarded-for": "1.2.3.4",
    });
    await sidecar.get(`/x`, { "dapr-app-id": `http://127.0.0.1:${plain.port}` });
    for (const { headers } of plain.requests) {
      for (const name of [
        "dapr-caller-app-id",
        "dapr-caller-namespace",
        "dapr-callee-app-id",
        "dapr-app-id",
        "dapr-api-token",
        "forwarded",
        "x-forwarded-host",
      ]) {
        expect(headers[name]).toBeUndefined();
      }
    }
    expect(plain.requests[0]!.headers["x-forwarded-for"]).toBe("1.2.3.4");
    await sidecar.get(`${invoke}/caller/method/own`);
    expect(app.requestsTo("/own")[0]!.headers["dapr-api-token"]).toBe("for the app alone");
  });

  test.each([
    ["a root of its own", "secure", () => secure],
    ["the system's roots", "roots", () => secure],
    ["a client certificate", "mutual", () => mutual],
  ])("over TLS with %s", async (_name, id, server) => {
    expect(await sidecar.get(`${invoke}/${id}/method/x`)).toMatchObject({ status: 200, text: "GET /x" });
    expect(lastOf(server()).tlsVersion).toBe("TLSv1.3");
    expect(lastOf(server()).client).toBe(id === "mutual" ? "me" : undefined);
  });

  test("passes every status and header of the server", async () => {
    plain.answer = () => ({
      status: 418,
      headers: { "x-tea": "1", "content-type": "text/tea" },
      body: "short",
    });
    const answer = await sidecar.get(`${invoke}/shop/method/x`);
    expect(answer).toMatchObject({
      status: 418,
      text: "short",
      headers: { "x-tea": "1", "content-type": "text/tea" },
    });
  });

  test("stands in the metadata; one that is scoped to another app does not", async () => {
    const { httpEndpoints } = (await sidecar.get("/v1.0/metadata")).json<{
      httpEndpoints: { name: string }[];
    }>();
    const names = ["both", "shop", "secure", "roots", "mutual", "stranger", "down"];
    expect(httpEndpoints.map(({ name }) => name)).toEqual(names);
    const metadata = await client.unary(Dapr.method.getMetadata, {});
    expect(metadata.httpEndpoints.map(({ name }) => name)).toEqual(names);
    expect((await sidecar.get(`${invoke}/elsewhere/method/x`)).json()).toMatchObject({
      message: "failed to invoke, id: elsewhere, err: couldn't find service: elsewhere",
    });
  });
});

describe("redirects", () => {
  test("are followed for a named endpoint: POST becomes GET, 307 keeps verb and body", async () => {
    plain.answer = ({ url }) => {
      if (url === "/seen") return { status: 302, headers: { location: "/other?x=1" } };
      if (url === "/kept")
        return { status: 307, headers: { location: `http://127.0.0.1:${plain.port}/there` } };
      return { body: "arrived" };
    };
    expect((await sidecar.post(`${invoke}/both/method/seen`, "body")).text).toBe("arrived");
    expect(lastOf(plain)).toMatchObject({ method: "GET", url: "/other?x=1", body: "" });
    expect(lastOf(plain).headers["content-type"]).toBeUndefined();
    expect(
      (await sidecar.post(`${invoke}/both/method/kept`, "body", { authorization: "Bearer x" })).text,
    ).toBe("arrived");
    expect(lastOf(plain)).toMatchObject({ method: "POST", url: "/there", body: "body" });
    expect(lastOf(plain).headers.authorization).toBe("Bearer x");
  });

  test("to another host leave credentials behind", async () => {
    plain.answer = () => ({ status: 307, headers: { location: `https://localhost:${secure.port}/over` } });
    const headers = { authorization: "Bearer x", cookie: "a=b", "x-mine": "1" };
    expect((await sidecar.post(`${invoke}/shop/method/x`, "body", headers)).text).toBe("POST /over");
    expect(lastOf(secure).headers).toMatchObject({ "x-mine": "1", host: `localhost:${secure.port}` });
    for (const name of ["authorization", "cookie", "x-key"])
      expect(lastOf(secure).headers[name]).toBeUndefined();
  });

  test("end after ten", async () => {
    plain.answer = ({ url }) => ({ status: 302, headers: { location: `${url}x` } });
    const answer = await sidecar.get(`${invoke}/both/method/x`);
    expect(answer.status).toBe(500);
    expect(answer.json<{ message: string }>().message).toMatch(
      /^failed to invoke, id: both, err: Get ".*": stopped after 10 redirects$/,
    );
    expect(plain.requests).toHaveLength(11);
  });

  test("are handed to the caller of a URL", async () => {
    plain.answer = () => ({ status: 302, headers: { location: "/other" } });
    const answer = await sidecar.get("/x", { "dapr-app-id": `http://127.0.0.1:${plain.port}` });
    expect(answer).toMatchObject({ status: 302, headers: { location: "/other" } });
    expect(plain.requests).toHaveLength(1);
  });
});

describe("a URL as app id", () => {
  const base = (): string => `http://127.0.0.1:${plain.port}`;

  test.each([
    ["raw in the path", () => `${invoke}/${base()}/method/a/b?q=1`],
    ["raw, one slash lost on the way", () => `${invoke}/http:/127.0.0.1:${plain.port}/method/a/b?q=1`],
    ["escaped in the path", () => `${invoke}/${encodeURIComponent(base())}/method/a/b?q=1`],
    ["escaped twice", () => `${invoke}/${encodeURIComponent(encodeURIComponent(base()))}/method/a/b?q=1`],
  ])("%s", async (_name, path) => {
    expect(await sidecar.get(path())).toMatchObject({ status: 200, text: "GET /a/b?q=1" });
  });

  test("in the header, with a path of its own", async () => {
    expect((await sidecar.get("/a?q=1", { "dapr-app-id": `${base()}/v2/` })).text).toBe("GET /v2//a?q=1");
    expect(lastOf(plain).headers["dapr-app-id"]).toBeUndefined();
  });

  test("over TLS with the system's roots", async () => {
    expect((await sidecar.get(`${invoke}/https://localhost:${secure.port}/method/x`)).text).toBe("GET /x");
  });

  test("that is broken is refused", async () => {
    const answer = await sidecar.get("/x", { "dapr-app-id": "http://host:port" });
    expect(answer.status).toBe(500);
    expect(answer.json()).toMatchObject({
      errorCode: "ERR_DIRECT_INVOKE",
      message: expect.stringMatching(/invalid URL "http:\/\/host:port"/),
    });
  });
});

test.each([
  [
    "nobody listens",
    "down",
    /Get "http:\/\/127\.0\.0\.1:\d+\/x": dial tcp 127\.0\.0\.1:\d+: connect: connection refused$/,
  ],
  [
    "unknown authority",
    "stranger",
    /Get "https:\/\/localhost:\d+\/x": tls: failed to verify certificate: x509: .* signed by unknown authority$/,
  ],
  [
    "a name that does not resolve",
    "http://no-such-host.invalid",
    /dial tcp: lookup no-such-host\.invalid.*$/,
  ],
])("error: %s", async (_name, id, text) => {
  const answer = await sidecar.get("/x", { "dapr-app-id": id });
  expect(answer.status).toBe(500);
  const { errorCode, message } = answer.json<{ errorCode: string; message: string }>();
  expect(errorCode).toBe("ERR_DIRECT_INVOKE");
  expect(message.startsWith(`failed to invoke, id: ${id}, err: `)).toBe(true);
  expect(message).toMatch(text);
});

test("HTTP asked of an HTTPS port, and TLS of a plain one, are clear errors", async () => {
  const answer = await sidecar.get("/x", { "dapr-app-id": `https://127.0.0.1:${plain.port}` });
  expect(answer.json<{ message: string }>().message).toMatch(
    /http: server gave HTTP response to HTTPS client$/,
  );
});

test("TLS 1.1 is refused", async () => {
  const { certificate, privateKey } = await authority.issue("old", ["localhost"]);
  const ciphers = "DEFAULT@SECLEVEL=0";
  const range = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers } as const;
  await using old = await startOutside({ cert: certificate, key: privateKey, ...range });
  const answer = await sidecar.get("/x", { "dapr-app-id": `https://localhost:${old.port}` });
  expect(answer.status).toBe(500);
  expect(answer.text).toMatch(/protocol version not supported/);
  expect(old.requests).toHaveLength(0);
});

test("beside an https app URLs are not verified; every target has its own count of calls", async () => {
  const resources = {
    "e.yaml":
      endpoint("stranger", `  baseUrl: https://localhost:${stranger.port}\n`) +
      endpoint("plain", `  baseUrl: http://127.0.0.1:${plain.port}\n`),
  };
  const flags = ["--app-max-concurrency=1"];
  const own = { appId: "lax", appPort: secure.port, appProtocol: "https", nats, resources, flags };
  await using lax = await startSidecar(own);
  expect((await lax.get("/x", { "dapr-app-id": `https://localhost:${stranger.port}` })).text).toBe("GET /x");
  expect((await lax.get("/x", { "dapr-app-id": "stranger" })).text).toMatch(
    /certificate signed by unknown authority/,
  );
  let now = 0;
  let most = 0;
  const held = Promise.withResolvers<void>();
  plain.answer = async () => {
    most = Math.max(most, ++now);
    await held.promise;
    now--;
    return { body: "late" };
  };
  const calls = [1, 2, 3].map(() => lax.get("/x", { "dapr-app-id": "plain" }));
  await eventually(() => plain.requests.length === 1);
  // The endpoint's one slot is taken, the app and other targets have theirs.
  expect((await lax.get(`${invoke}/lax/method/y`)).text).toBe("GET /y");
  expect((await lax.get("/x", { "dapr-app-id": `https://localhost:${stranger.port}` })).status).toBe(200);
  held.resolve();
  expect((await Promise.all(calls)).map(({ text }) => text)).toEqual(["late", "late", "late"]);
  expect(most).toBe(1);
});

describe("InvokeService", () => {
  const method = Dapr.method.invokeService;
  const message = (name: string) => ({
    method: name,
    data: { value: Buffer.from("body") },
    contentType: "text/x",
    httpExtension: { verb: HTTPExtension_Verb.PUT, querystring: "q=1" },
  });

  test.each(["shop", "url"])("reaches %s", async (id) => {
    const target = id === "url" ? `http://127.0.0.1:${plain.port}/api/` : id;
    const answer = await client.call(
      method,
      { id: target, message: message("a/b") },
      { metadata: { "x-one": "1" } },
    );
    expect(Buffer.from(answer.message.data!.value).toString()).toBe("PUT /api//a/b?q=1");
    expect(answer.headers.get("dapr-http-status")).toEqual(["200"]);
    expect(lastOf(plain)).toMatchObject({ method: "PUT", body: "body" });
    const { headers } = lastOf(plain);
    expect(headers).toMatchObject({ "x-one": "1", "content-type": "text/x" });
    for (const name of ["dapr-caller-app-id", "weft-grpc-method", "dapr-api-token"])
      expect(headers[name]).toBeUndefined();
  });

  test("answers a status of the server, a missing verb and a dead server with errors", async () => {
    plain.answer = () => ({ status: 404, body: "no such thing" });
    await expect(client.unary(method, { id: "shop", message: message("x") })).rejects.toMatchObject({
      code: 5,
      details: "Not Found",
    });
    const bare = { method: "x", data: { value: Buffer.from("") } };
    await expect(client.unary(method, { id: "shop", message: bare })).rejects.toMatchObject({
      code: 13,
      details:
        "failed to invoke, id: shop, err: rpc error: code = InvalidArgument desc = missing HTTP extension field",
    });
    await expect(client.unary(method, { id: "down", message: message("x") })).rejects.toMatchObject({
      code: 13,
      details: expect.stringMatching(
        /^failed to invoke, id: down, err: Put ".*": dial tcp .*: connect: connection refused$/,
      ),
    });
  });
});
