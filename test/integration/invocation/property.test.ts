// Random requests through two sidecars: what is not refused with a clear error arrives unchanged, and nothing crashes.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { grpcClient, GrpcError, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, GrpcClient, Sidecar } from "../../kit/index.ts";

let stack: AsyncDisposableStack;
let app: App;
let caller: Sidecar;
let callee: Sidecar;
let client: GrpcClient;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const echo = ({ body }: { body: Buffer }) => ({
    headers: { "content-type": "application/octet-stream" },
    body,
  });
  app = stack.use(await startApp({ fallback: echo }));
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  client = stack.use(grpcClient(caller.grpcPort));
});

afterAll(() => stack.disposeAsync());

const runs = { numRuns: 150, interruptAfterTimeLimit: 40_000 };

/** Bytes that a text with percent escapes stands for. */
function bytesOf(text: string): Buffer {
  const parts = text.split(/(%[0-9A-Fa-f]{2})/);
  return Buffer.concat(
    parts.map((part, i) => (i % 2 === 1 ? Buffer.from(part.slice(1), "hex") : Buffer.from(part))),
  );
}

/** What the contract says of a method: no empty or dot parts, none above the root. */
function normalized(method: string): string {
  const kept: string[] = [];
  for (const part of method.split("/")) {
    if (part === "..") kept.pop();
    else if (part !== "" && part !== ".") kept.push(part);
  }
  return `/${kept.join("/")}`;
}

/** HTTP takes spaces and tabs around a value for padding, and nothing else. */
function trimmed(value: string): string {
  return value.replace(/^[ \t]+|[ \t]+$/g, "");
}

const character = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(..."abcXYZ019-._~!$&'()*+,;=:@") },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      "/",
      "//",
      "/./",
      "/../",
      "%2F",
      "%2e",
      "%25",
      "%2541",
      "%20",
      "%22",
      "%5C",
      "%3B",
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      "%",
      "%zz",
      "%00",
      "%0A",
      "%7F",
      "%3F",
      "%23",
      "%FF",
      "%C3%A9",
      "%E2%82%AC",
      "|",
      "^",
      "`",
      "{",
      "[",
      '"',
      "<",
    ),
  },
);
const path = fc.array(character, { maxLength: 30 }).map((parts) => parts.join(""));
const query = fc.string({ maxLength: 30, unit: fc.constantFrom(..."ab=&+%?/;:@[]{}|^\"'<>`\\") });
const token = fc.string({
  minLength: 1,
  maxLength: 12,
  unit: fc.constantFrom(..."abcdefxyz0189-_.!#$%&'*+^`|~"),
});
/** Names with `x-` have no meaning of their own anywhere. */
const headers = fc.dictionary(
  token.map((name) => `x-${name}`),
  fc.string({
    maxLength: 40,
    unit: fc
      .integer({ min: 0x20, max: 0xff })
      .filter((it) => it !== 0x7f)
      .map((it) => String.fromCharCode(it)),
  }),
  { maxKeys: 6 },
);
const body = fc.uint8Array({ maxLength: 2_000 });
const verb = fc.constantFrom("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS");

test("over HTTP", async () => {
  let arrived = 0;
  const property = fc.asyncProperty(
    verb,
    path,
    query,
    headers,
    body,
    async (method, route, search, sent, bytes) => {
      const before = app.requests.length;
      const target = `/v1.0/invoke/callee/method/${route}${search === "" ? "" : `?${search}`}`;
      const content = method === "GET" ? undefined : Buffer.from(bytes);
      const answer = await caller.http(target, {
        method,
        headers: sent,
        ...(content === undefined ? {} : { body: content }),
      });
      if (answer.status !== 200) {
        expect([400, 500]).toContain(answer.status);
        if (answer.status === 400) expect(answer.text).toBe("400 Bad Request");
        else
          expect(answer.json()).toMatchObject({
            errorCode: "ERR_DIRECT_INVOKE",
            message: expect.stringMatching(/^failed to invoke, id: callee, err: .* = invalid method: ./),
          });
        expect(app.requests).toHaveLength(before);
        return;
      }
      arrived++;
      const got = app.requests.at(-1)!;
      expect(app.requests).toHaveLength(before + 1);
      expect(got.method).toBe(method);
      expect(got.query).toBe(search);
      expect(bytesOf(got.path)).toEqual(bytesOf(normalized(decodeURIComponent(route))));
      expect(got.body.equals(content ?? Buffer.alloc(0))).toBe(true);
      expect(answer.bytes.equals(content ?? Buffer.alloc(0))).toBe(true);
      for (const [name, value] of Object.entries(sent)) {
        if (!name.endsWith("-bin")) expect(got.headers[name]).toBe(trimmed(value));
      }
    },
  );
  await fc.assert(property, runs);
  expect(arrived).toBeGreaterThan(20);
  expect((await callee.get("/v1.0/healthz")).status).toBe(204);
});

test("over gRPC", async () => {
  let arrived = 0;
  const method = fc.string({ maxLength: 30, unit: "binary" });
  // HTTP/2 has no padding around values: what begins or ends with a space is dropped by the client's transport.
  const metadata = fc.dictionary(
    fc
      .string({ minLength: 1, maxLength: 10, unit: fc.constantFrom(..."abcxyz019-_.") })
      .map((name) => `x-${name}0`),
    fc.string({ minLength: 1, maxLength: 30, unit: "grapheme-ascii" }).filter((it) => it === it.trim()),
    { maxKeys: 5 },
  );
  const type = fc.constantFrom("", "text/x", "application/json; charset=utf-8");
  const property = fc.asyncProperty(
    method,
    query,
    metadata,
    body,
    type,
    async (name, search, sent, bytes, contentType) => {
      const before = app.requests.length;
      const extension = { verb: HTTPExtension_Verb.POST, querystring: search };
      const message = { method: name, data: { value: bytes }, contentType, httpExtension: extension };
      const call = client.call(Dapr.method.invokeService, { id: "callee", message }, { metadata: sent });
      const answer = await call.catch((error: unknown) => error as GrpcError);
      if (answer instanceof GrpcError) {
        expect(answer.code).toBe(13);
        expect(answer.details).toMatch(/^failed to invoke, id: callee, err: .* = invalid method: ./);
        expect(app.requests).toHaveLength(before);
        return;
      }
      arrived++;
      const got = app.requests.at(-1)!;
      expect(app.requests).toHaveLength(before + 1);
      expect(got.query).toBe(search);
      expect(bytesOf(got.path)).toEqual(bytesOf(normalized(name)));
      expect(got.body.equals(Buffer.from(bytes))).toBe(true);
      expect(Buffer.from(answer.message.data!.value).equals(Buffer.from(bytes))).toBe(true);
      expect(got.headers["content-type"]).toBe(contentType === "" ? undefined : contentType);
      for (const [key, value] of Object.entries(sent)) expect(got.headers[key]).toBe(trimmed(value));
    },
  );
  await fc.assert(property, runs);
  expect(arrived).toBeGreaterThan(20);
});
