// Whatever a client does to a proxied call, it ends with a status or the client's own reset, well-formed bytes arrive
// as they were, the next call works, and nothing stays open. A failing case prints its seed.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import type { Sidecar } from "../../kit/index.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { type RawApp, rawClient, type RawClient, startRawApp } from "./raw-grpc.ts";

const stack = new AsyncDisposableStack();
const target = { "dapr-app-id": "callee" };
let app: RawApp;
let callee: Sidecar;
let clients: readonly RawClient[];

beforeAll(async () => {
  const nats = stack.use(await startNats());
  app = stack.use(await startRawApp());
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, appProtocol: "grpc", nats }));
  const caller = stack.use(await startSidecar({ appId: "caller", nats }));
  clients = [caller, callee].map(({ grpcPort }) => stack.use(rawClient(grpcPort)));
});
afterAll(() => stack.disposeAsync());

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A call that does not end is a failure that fast-check can shrink. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the call does not end")), 20_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const name = fc
  .stringMatching(/^[a-z][a-z0-9_.-]{0,20}$/)
  .map((text) => `x-${text}`)
  .filter((text) => !text.endsWith("-bin"));
const value = fc.stringMatching(/^[!-~]([ -~]{0,60}[!-~])?$/);

test("any metadata and any messages, cut anywhere, come back as they were", async () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 3_000 }), { maxLength: 8 });
  const cuts = fc.array(fc.integer({ min: 1, max: 2_000 }), { minLength: 1, maxLength: 5 });
  const metadata = fc.dictionary(name, value, { maxKeys: 8 });
  await fc.assert(
    fc.asyncProperty(messages, cuts, metadata, fc.nat(1), async (sent, sizes, headers, way) => {
      app.calls.splice(0);
      const call = clients[way]!.call("/p.P/Echo", { ...headers, ...target });
      const wire = Buffer.concat(sent.map((message) => encodeFrame(message)));
      for (let at = 0, i = 0; at < wire.length; i++) {
        const size = sizes[i % sizes.length]!;
        call.stream.write(wire.subarray(at, at + size));
        at += size;
        if (i % 2 === 0) await turn();
      }
      call.stream.end();
      expect((await call.ended).code).toBe(0);
      expect(call.messages.map((message) => message.toString("hex"))).toEqual(
        sent.map((message) => Buffer.from(message).toString("hex")),
      );
      for (const [key, text] of Object.entries(headers)) expect(app.calls[0]!.headers[key]).toBe(text);
    }),
    { numRuns: 150 },
  );
}, 180_000);

test("any bytes and any end: a status or the client's reset, and the next call works", async () => {
  const step = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((bytes) => ({ write: bytes })),
    fc.uint8Array({ maxLength: 64 }).map((bytes) => ({ write: encodeFrame(bytes) })),
    fc.constant({ wait: true }),
  );
  const last = fc.constantFrom("end", "reset", "cancel", "refuse");
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 6 }), last, fc.nat(1), async (steps, end, way) => {
      const client = clients[way]!;
      const call = client.call("/p.P/Echo", target);
      for (const one of steps) {
        if ("wait" in one) await turn();
        else if (!call.stream.destroyed) call.stream.write(one.write);
      }
      if (end === "end") call.stream.end();
      else if (end === "reset") call.reset();
      else {
        call.stream.close(end === "cancel" ? 8 : 7);
        // Node forgets a stream that is closed with something unsent only when it is told to.
        setImmediate(() => call.stream.destroy());
      }
      const { code, resetCode } = await soon(call.ended);
      if (code === undefined) expect(resetCode).not.toBe(0);
      else expect([0, 1, 8, 13]).toContain(code);
      const next = client.call("/p.P/Echo", target);
      next.stream.end(encodeFrame(Buffer.from("next")));
      expect((await soon(next.ended)).code).toBe(0);
    }),
    { numRuns: 250 },
  );
  await eventually(() => expect(app.open()).toBe(0));
  expect(callee.running()).toBe(true);
}, 180_000);
