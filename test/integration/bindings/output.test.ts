// Output bindings over HTTP and gRPC through a real sidecar: a real HTTP server, files, a real SMTP server.
import { mkdtemp, readFile, symlink } from "node:fs/promises";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { SMTPServer } from "smtp-server";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcError, freePort, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { certificateAuthority } from "../../kit/certificates.ts";
import { binding } from "./resources.ts";

const post = (body: unknown): { method: string; body: string } => ({
  method: "POST",
  body: JSON.stringify(body),
});

test("bindings.http: the operation is the verb, metadata are headers, the answer's status comes back", async () => {
  await using nats = await startNats();
  await using server = await startApp({ fallback: () => ({ status: 404, body: "none" }) });
  server.on("/api/orders", (request) => ({
    status: 201,
    headers: { "X-Reply": ["one", "two"] },
    body: { verb: request.method, body: request.body.toString(), own: request.headers["x-own"] ?? "" },
  }));
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "h.yaml": binding("web", "bindings.http", {
        url: `${server.url}/api`,
        securityToken: "secret",
        securityTokenHeader: "X-Token",
      }),
    },
  });
  const answer = await sidecar.http(
    "/v1.0/bindings/web",
    post({
      operation: "create",
      data: { b: 1, a: "<" },
      metadata: { path: "/orders", "X-Own": "yes", small: "no" },
    }),
  );
  expect(answer.status).toBe(200);
  expect(answer.headers["metadata.statuscode"]).toBe("201");
  expect(answer.headers["metadata.status"]).toBe("201 Created");
  expect(answer.headers["metadata.x-reply"]).toBe("one, two");
  expect(answer.headers["metadata.transfer-encoding"]).toBeUndefined();
  expect(answer.headers["content-type"]).toBe("application/json");
  expect(answer.json()).toEqual({ verb: "POST", body: '{"a":"\\u003c","b":1}', own: "yes" });
  const [request] = server.requestsTo("/api/orders");
  expect(request!.headers["x-token"]).toBe("secret");
  expect(request!.headers["content-type"]).toBe("application/json; charset=utf-8");
  expect(request!.headers["small"]).toBeUndefined();

  const refused = await sidecar.http(
    "/v1.0/bindings/web",
    post({ operation: "get", metadata: { path: "nothing" } }),
  );
  expect(refused.status).toBe(500);
  expect(refused.headers["metadata.statuscode"]).toBe("404");
  expect(refused.json()).toEqual({
    errorCode: "ERR_INVOKE_OUTPUT_BINDING",
    message: "error invoking output binding web: received status code 404",
  });
  const lenient = { path: "nothing", errorIfNot2XX: "false" };
  const taken = await sidecar.http("/v1.0/bindings/web", post({ operation: "get", metadata: lenient }));
  expect([taken.status, taken.text]).toEqual([200, "none"]);
});

test("bindings.http has an operation for each verb", async () => {
  await using nats = await startNats();
  await using server = await startApp({
    fallback: (request) => ({
      headers: { Verb: request.method, Kind: request.headers["content-type"] ?? "none" },
      body: request.body.toString(),
    }),
  });
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: { "h.yaml": binding("web", "bindings.http", { url: server.url }) },
  });
  const json = "application/json; charset=utf-8";
  const cases: readonly (readonly [string, string, string, string])[] = [
    ["create", "POST", json, '{"n":1}'],
    ["post", "POST", json, '{"n":1}'],
    ["put", "PUT", json, '{"n":1}'],
    ["patch", "PATCH", json, '{"n":1}'],
    ["get", "GET", "none", ""],
    ["head", "HEAD", "none", ""],
    ["options", "OPTIONS", "none", ""],
    ["trace", "TRACE", "none", ""],
  ];
  for (const [operation, verb, kind, body] of cases) {
    const answer = await sidecar.http("/v1.0/bindings/web", post({ operation, data: { n: 1 } }));
    const { "metadata.verb": sent, "metadata.kind": type } = answer.headers;
    expect([operation, answer.status, sent, type, answer.text]).toEqual([operation, 200, verb, kind, body]);
  }
  server.on("/old", () => ({ status: 302, headers: { Location: "/new" } }));
  const moved = { operation: "post", data: 1, metadata: { path: "old" } };
  const followed = await sidecar.http("/v1.0/bindings/web", post(moved));
  expect([followed.status, followed.headers["metadata.verb"], followed.text]).toEqual([200, "GET", ""]);
  const deleted = await sidecar.http("/v1.0/bindings/web", post({ operation: "delete" }));
  expect([deleted.status, deleted.headers["metadata.verb"]]).toEqual([200, "DELETE"]);
});

test("bindings.http shows a certificate and takes those that MTLSRootCA signed, as text or file", async () => {
  await using nats = await startNats();
  await using authority = await certificateAuthority();
  const own = await authority.issue("localhost", ["127.0.0.1"]);
  const client = await authority.issue("caller", ["caller"]);
  const options = { cert: own.certificate, key: own.privateKey, ca: authority.root, requestCert: true };
  const server = createServer({ ...options, rejectUnauthorized: true }, (request, response) => {
    response.end((request.socket as TLSSocket).getPeerCertificate().subject.CN);
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
  await using _server = { [Symbol.asyncDispose]: async () => void server.close() };
  const url = `https://127.0.0.1:${port}`;
  const shown = { MTLSClientCert: client.certificate, MTLSClientKey: client.privateKey };
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "1.yaml": binding("text", "bindings.http", { url, MTLSRootCA: authority.root, ...shown }),
      "2.yaml": binding("file", "bindings.http", { url, mtlsrootca: authority.rootFile, ...shown }),
      "3.yaml": binding("silent", "bindings.http", { url, MTLSRootCA: authority.root }),
      "4.yaml": binding("distrustful", "bindings.http", { url, ...shown }),
    },
  });
  for (const name of ["text", "file"]) {
    const answer = await sidecar.http(`/v1.0/bindings/${name}`, post({ operation: "get" }));
    expect([answer.status, answer.text]).toEqual([200, "caller"]);
  }
  for (const name of ["silent", "distrustful"])
    expect((await sidecar.http(`/v1.0/bindings/${name}`, post({ operation: "get" }))).status).toBe(500);
});

test("what cannot be done is told in the words clients know, over HTTP and gRPC", async () => {
  await using nats = await startNats();
  await using folder = await tempFolder();
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "f.yaml": binding("files", "bindings.localstorage", { rootPath: folder.path }),
      "i.yaml": binding("in", "bindings.localstorage", { rootPath: folder.path, direction: "input" }),
    },
  });
  using client = grpcClient(sidecar.grpcPort);
  const cases: readonly (readonly [string, string, string])[] = [
    ["files", "", "operation field is missing from request"],
    ["nobody", "create", "couldn't find output binding nobody"],
    ["in", "create", "couldn't find output binding in"],
    [
      "files",
      "fly",
      "binding files does not support operation fly. supported operations:create get list delete",
    ],
  ];
  for (const [name, operation, why] of cases) {
    const message = `error invoking output binding ${name}: ${why}`;
    const answer = await sidecar.http(`/v1.0/bindings/${name}`, post({ operation }));
    expect([answer.status, answer.json()]).toEqual([
      500,
      { errorCode: "ERR_INVOKE_OUTPUT_BINDING", message },
    ]);
    const error = await client.unary(Dapr.method.invokeBinding, { name, operation }).then(
      () => undefined,
      (thrown: GrpcError) => thrown,
    );
    expect([error?.code, error?.details]).toEqual([13, message]);
  }
  for (const [body, why] of [
    ["", "EOF"],
    ["{", "unexpected EOF"],
    ["x", "invalid character 'x' looking for beginning of value"],
  ] as const) {
    const broken = await sidecar.http("/v1.0/bindings/files", { method: "POST", body });
    const message = `failed deserializing HTTP body: ${why}`;
    expect([broken.status, broken.json()]).toEqual([400, { errorCode: "ERR_MALFORMED_REQUEST", message }]);
  }
});

test("bindings.localstorage keeps files, and no name leads out of its folder", async () => {
  await using nats = await startNats();
  await using folder = await tempFolder();
  await symlink(tmpdir(), join(folder.path, "out"));
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: { "f.yaml": binding("files", "bindings.localstorage", { rootPath: folder.path }) },
  });
  const call = (operation: string, fileName: string, data?: unknown): ReturnType<typeof sidecar.http> =>
    sidecar.http("/v1.0/bindings/files", post({ operation, data, metadata: { fileName } }));

  expect((await call("list", "")).text).toBe("null");
  expect((await call("create", "a/b.txt", "hello there")).json()).toEqual({ fileName: "a/b.txt" });
  expect(await readFile(join(folder.path, "a/b.txt"), "utf8")).toBe("hello there");
  await call("create", "bin", Buffer.from([0, 255]).toString("base64"));
  expect([...(await readFile(join(folder.path, "bin")))]).toEqual([0, 255]);
  await call("create", "json", { a: 1 });
  expect((await call("get", "json")).text).toBe('{"a":1}');
  expect((await call("list", "a")).json()).toEqual([join(folder.path, "a/b.txt")]);
  expect((await call("create", "../../../../up.txt", "held")).json()).toEqual({ fileName: "up.txt" });
  expect((await call("create", "out/held.txt", "x")).text).toContain("leads out of rootPath");
  expect((await call("delete", "a/b.txt")).status).toBe(204);
  expect((await call("delete", "a/b.txt")).text).toContain(`file not found: ${join(folder.path, "a/b.txt")}`);
  expect((await call("get", "a/b.txt")).status).toBe(500);
  expect((await call("get", "")).text).toContain("fileName");
  const named = await sidecar.http("/v1.0/bindings/files", post({ operation: "create", data: "x" }));
  expect(named.json<{ fileName: string }>().fileName).toMatch(/^[0-9a-f-]{36}$/);
});

test("bindings.smtp sends mail, and one request's addresses do not hold for the next", async () => {
  await using nats = await startNats();
  await using mail = await startMail();
  await using sidecar = await startSidecar({
    appId: "caller",
    nats,
    resources: {
      "m.yaml": binding("mail", "bindings.smtp", {
        host: "127.0.0.1",
        port: String(mail.port),
        skipTLSVerify: "true",
        emailFrom: "shop@example.org",
        emailTo: "a@example.org; b@example.org",
        subject: "News",
      }),
    },
  });
  const send = (metadata: Record<string, string>): ReturnType<typeof sidecar.http> =>
    sidecar.http("/v1.0/bindings/mail", post({ operation: "create", data: "<b>Hi</b>", metadata }));
  expect((await send({ emailTo: "c@example.org", subject: "Only you", priority: "1" })).status).toBe(204);
  expect((await send({})).status).toBe(204);
  expect(mail.sent.map(({ to }) => to)).toEqual([["c@example.org"], ["a@example.org", "b@example.org"]]);
  expect(mail.sent[0]!.text).toMatch(/X-Priority: 1/i);
  expect(mail.sent[0]!.text).toContain("Subject: Only you");
  expect(mail.sent[0]!.text).toContain("<b>Hi</b>");
  expect((await send({ priority: "9" })).text).toContain("priority");
});

async function tempFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "weft-files-"));
  const { rm } = await import("node:fs/promises");
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

type Mail = { readonly to: readonly string[]; readonly text: string };

async function startMail(): Promise<
  AsyncDisposable & { readonly port: number; readonly sent: readonly Mail[] }
> {
  const sent: Mail[] = [];
  const port = await freePort();
  const server = new SMTPServer({
    authOptional: true,
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        sent.push({
          to: session.envelope.rcptTo.map(({ address }) => address),
          text: Buffer.concat(chunks).toString(),
        });
        done();
      });
    },
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
  return { port, sent, [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())) };
}
