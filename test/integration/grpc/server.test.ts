/** The gRPC server against grpc-js: answers, statuses, limits, cancellation and streams. */
import { gzipSync } from "node:zlib";
import { connect as connectHttp2 } from "node:http2";
import { once } from "node:events";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Client, compressionAlgorithms, credentials, status } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { GetStateRequestSchema } from "../../../proto/gen/dapr/proto/runtime/v1/state_pb.ts";
import { ErrorInfoSchema, ResourceInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Clock, systemClock } from "../../../mesh/index.ts";
import { ApiError, errorInfo, GrpcCode, resourceInfo } from "../../../src/api/errors.ts";
import { streaming, unary } from "../../../src/api/grpc.ts";
import { GrpcStatusError } from "../../../src/api/grpc-status-error.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { GrpcError } from "../../kit/grpc.ts";
import { eventually } from "../../kit/eventually.ts";
import { aborted, echo, getState, startServer } from "./fixture.ts";

const MiB = 1024 * 1024;
const path = "/dapr.proto.runtime.v1.Dapr/GetState";

async function failure(promise: Promise<unknown>): Promise<GrpcError> {
  const error = await promise.then(
    () => new Error("the call succeeded"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof GrpcError)) throw error;
  return error;
}

describe("unary calls", () => {
  test("decode the request, encode the answer, carry metadata both ways", async () => {
    const bytes = Buffer.from([0, 255, 128, 10]);
    await using server = await startServer([
      getState(async ({ storeName, key }, call) => {
        call.setHeader("x-head", call.metadata.get("x-in")![0]!);
        call.setHeader("x-head", "second");
        call.setTrailer("x-tail-bin", call.metadata.get("x-in-bin")![0]!);
        return { data: Buffer.from(`${storeName}/${key}`), etag: "7" };
      }),
    ]);
    const metadata = { "x-in": "value", "x-in-bin": bytes };
    const answer = await server.client.call(Dapr.method.getState, { storeName: "s", key: "k" }, { metadata });
    expect(Buffer.from(answer.message.data).toString()).toBe("s/k");
    expect(answer.message.etag).toBe("7");
    expect(answer.headers.get("x-head")).toEqual(["value, second"]);
    expect(answer.trailers.get("x-tail-bin")).toEqual([bytes]);
    expect(server.completed).toEqual([`${path} OK`]);
  });

  test("ApiError becomes its status with details", async () => {
    await using server = await startServer([
      getState(() => {
        throw new ApiError({
          code: "ERR_X",
          httpStatus: 404,
          grpcCode: GrpcCode.NotFound,
          message: "nicht gefunden: 100 % – ü",
          details: [resourceInfo("state", "s"), errorInfo("REASON", { a: "b" })],
        });
      }),
    ]);
    const error = await failure(server.client.unary(Dapr.method.getState, {}));
    expect([error.code, error.details]).toEqual([status.NOT_FOUND, "nicht gefunden: 100 % – ü"]);
    const details = error.status()!.details;
    expect(anyUnpack(details[0]!, ResourceInfoSchema)).toMatchObject({
      resourceType: "state",
      resourceName: "s",
    });
    expect(anyUnpack(details[1]!, ErrorInfoSchema)).toMatchObject({
      reason: "REASON",
      domain: "dapr.io",
      metadata: { a: "b" },
    });
    expect(server.completed).toEqual([`${path} NotFound`]);
  });

  test("an app's status passes unchanged, any other throw is Unknown and logged", async () => {
    const details = Buffer.from([8, 5]);
    await using server = await startServer([
      getState(({ key }) => {
        if (key === "app") throw new GrpcStatusError(9, "no", details, ["x-t", "1", "x-t-bin", "AP8"]);
        throw new TypeError("broken");
      }),
    ]);
    const app = await failure(server.client.unary(Dapr.method.getState, { key: "app" }));
    expect([app.code, app.details]).toEqual([9, "no"]);
    expect(app.metadata.get("grpc-status-details-bin")).toEqual([details]);
    expect(app.metadata.get("x-t")).toEqual(["1"]);
    expect(app.metadata.get("x-t-bin")).toEqual([Buffer.from([0, 255])]);
    const fault = await failure(server.client.unary(Dapr.method.getState, { key: "fault" }));
    expect(fault.code).toBe(status.UNKNOWN);
    expect(server.lines.some((line) => line.startsWith("error") && line.includes("TypeError: broken"))).toBe(
      true,
    );
  });

  test("unknown methods and services", async () => {
    await using server = await startServer([getState(async () => ({}))]);
    const method = await failure(server.client.raw("/dapr.proto.runtime.v1.Dapr/Nope", Buffer.alloc(0)));
    expect([method.code, method.details]).toEqual([
      12,
      "unknown method Nope for service dapr.proto.runtime.v1.Dapr",
    ]);
    const service = await failure(server.client.raw("/my.Service/Nope", Buffer.alloc(0)));
    expect([service.code, service.details]).toEqual([12, "unknown service my.Service"]);

    // A method that the service has, though it is not mounted, is nobody else's.
    const other = await failure(server.client.raw("/dapr.proto.runtime.v1.Dapr/SaveState", Buffer.alloc(0)));
    expect(other.details).toBe("unknown method SaveState for service dapr.proto.runtime.v1.Dapr");
  });

  test("the API token", async () => {
    await using server = await startServer([getState(async () => ({}))], { apiToken: "secret" });
    const call = (metadata: Record<string, string>) =>
      server.client.unary(Dapr.method.getState, {}, { metadata });
    const reason = (error: GrpcError) =>
      anyUnpack(error.status()!.details[0]!, ErrorInfoSchema)!.metadata["http.error_message"];
    const missing = await failure(call({}));
    expect([missing.code, missing.details, reason(missing)]).toEqual([
      16,
      "Unauthorized",
      "missing api token in request metadata",
    ]);
    expect(reason(await failure(call({ "dapr-api-token": "Secret" })))).toBe(
      "authentication error: api token mismatch",
    );
    await call({ "dapr-api-token": "secret" });
    const unknown = await failure(server.client.raw("/my.Service/Nope", Buffer.alloc(0)));
    expect(unknown.code).toBe(16);
  });

  test("message size limits both ways", async () => {
    await using server = await startServer([
      getState(async ({ key }) => ({ data: key === "big" ? Buffer.alloc(5 * MiB) : Buffer.alloc(1) })),
      unary(Dapr.method.publishEvent, async () => ({})),
    ]);
    const received = await failure(
      server.client.unary(Dapr.method.publishEvent, { data: Buffer.alloc(5 * MiB) }),
    );
    expect([received.code, received.details]).toEqual([
      8,
      `grpc: received message larger than max (${5 * MiB + 5} vs. ${4 * MiB})`,
    ]);
    const sent = await failure(server.client.unary(Dapr.method.getState, { key: "big" }));
    expect(sent.code).toBe(8);
    expect(sent.details).toBe(`grpc: trying to send message larger than max (${5 * MiB + 5} vs. ${4 * MiB})`);
    await server.client.unary(Dapr.method.publishEvent, { data: Buffer.alloc(4 * MiB - 64) });

    await using large = await startServer(
      [
        getState(async () => ({ data: Buffer.alloc(20 * MiB, 7) })),
        unary(Dapr.method.publishEvent, async () => ({})),
      ],
      { maxMessageBytes: 32 * MiB },
    );
    await large.client.unary(Dapr.method.publishEvent, { data: Buffer.alloc(20 * MiB) });
    const answer = await large.client.unary(Dapr.method.getState, {});
    expect(answer.data.length).toBe(20 * MiB);
    expect(answer.data[20 * MiB - 1]).toBe(7);
  });

  test("deadline: the client gets DeadlineExceeded, the handler its signal", async () => {
    let reason: unknown;
    const began = Promise.withResolvers<void>();
    // The deadline passes when the handler has begun: a machine may take longer than that to begin it.
    const clock: Clock = {
      ...systemClock,
      setTimeout(task, delayMs) {
        if (delayMs < 40_000) return systemClock.setTimeout(task, delayMs);
        void began.promise.then(task);
        return { cancel: () => {} };
      },
    };
    const method = getState(async (_request, call) => {
      began.resolve();
      reason = await aborted(call);
      return {};
    });
    await using server = await startServer([method], { clock });
    const stream = rawCall(server.port, path, { "grpc-timeout": "50S" });
    stream.end(encodeFrame(new Uint8Array(0)));
    const [headers] = await once(stream, "response");
    expect([headers["grpc-status"], headers["grpc-message"]]).toEqual(["4", "context deadline exceeded"]);
    expect(reason).toMatchObject({ grpcCode: GrpcCode.DeadlineExceeded });
    expect(server.completed).toEqual([`${path} DeadlineExceeded`]);
    stream.session?.destroy();
    const error = await failure(server.client.unary(Dapr.method.getState, {}, { timeoutMs: 50 }));
    expect(error.code).toBe(4);
  });

  test("cancel: the handler's signal is aborted and the call counted", async () => {
    const reasons: unknown[] = [];
    const began = Promise.withResolvers<void>();
    await using server = await startServer([
      getState(async (_request, call) => {
        began.resolve();
        reasons.push(await aborted(call));
        throw call.signal.reason;
      }),
    ]);
    const stream = rawCall(server.port, path, {});
    stream.end(encodeFrame(new Uint8Array(0)));
    await began.promise;
    stream.close(8);
    await eventually(() => expect(reasons).toMatchObject([{ grpcCode: GrpcCode.Canceled }]));
    expect(server.completed).toEqual([`${path} Canceled`]);
    stream.session?.destroy();
  });

  test("1,000 calls at once", async () => {
    let running = 0;
    let most = 0;
    const all = Promise.withResolvers<void>();
    await using server = await startServer([
      getState(async ({ key }) => {
        most = Math.max(most, ++running);
        if (running === 1000) all.resolve();
        await all.promise;
        running--;
        return { etag: key };
      }),
    ]);
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => server.client.unary(Dapr.method.getState, { key: String(i) })),
    );
    expect(answers.map(({ etag }) => Number(etag))).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(most).toBe(1000);
  });

  test("a gzip request is read; unknown encodings are Unimplemented", async () => {
    await using server = await startServer([getState(async ({ key }) => ({ etag: key }))]);
    const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure(), {
      "grpc.default_compression_algorithm": compressionAlgorithms.gzip,
    });
    const request = toBinary(GetStateRequestSchema, create(GetStateRequestSchema, { key: "k".repeat(5000) }));
    const same = (bytes: Buffer): Buffer => bytes;
    const answer = await new Promise<Buffer | undefined>((resolve, reject) =>
      client.makeUnaryRequest(path, same, same, Buffer.from(request), (error, value) =>
        error === null ? resolve(value) : reject(error),
      ),
    );
    client.close();
    expect(answer!.toString()).toContain("k".repeat(5000));
    const refused = rawCall(server.port, path, { "grpc-encoding": "snappy" });
    refused.end();
    const [headers] = await once(refused, "response");
    expect(headers["grpc-status"]).toBe("12");
    expect(headers["grpc-accept-encoding"]).toBe("identity,gzip");
    refused.session?.destroy();
  });

  test("a gzip bomb, a flag without encoding, and damaged gzip are refused", async () => {
    await using server = await startServer([getState(async () => ({}))]);
    const send = async (encoding: string, body: Buffer): Promise<string[]> => {
      const stream = rawCall(server.port, path, { "grpc-encoding": encoding });
      const frame = encodeFrame(body);
      frame[0] = 1;
      stream.end(frame);
      const [headers] = await once(stream, "response");
      stream.session?.destroy();
      return [headers["grpc-status"], decodeURIComponent(headers["grpc-message"])];
    };
    expect(await send("gzip", gzipSync(Buffer.alloc(64 * MiB)))).toEqual([
      "8",
      `grpc: received message after decompression larger than max ${4 * MiB}`,
    ]);
    expect((await send("identity", Buffer.from("x")))[0]).toBe("13");
    expect((await send("gzip", Buffer.from("no gzip")))[0]).toBe("13");
  });

  test("a message that is not the request's, none, two, and half a one", async () => {
    await using server = await startServer([getState(async () => ({}))]);
    const send = async (...parts: Buffer[]): Promise<string[]> => {
      const stream = rawCall(server.port, path, {});
      for (const part of parts) stream.write(part);
      stream.end();
      const [headers] = await once(stream, "response");
      stream.session?.destroy();
      return [headers["grpc-status"], decodeURIComponent(headers["grpc-message"])];
    };
    const garbage = await send(encodeFrame(Buffer.from([0x0a, 0xff])));
    expect(garbage[0]).toBe("13");
    expect(garbage[1]).toMatch(/^grpc: error unmarshalling request: proto: /);
    const empty = encodeFrame(new Uint8Array(0));
    expect((await send())[0]).toBe("13");
    expect((await send(empty, empty))[0]).toBe("13");
    expect((await send(Buffer.from([0, 0, 0, 0, 9, 1])))[0]).toBe("13");
    expect((await send(Buffer.from([0, 255, 255, 255, 255])))[1]).toBe(
      `grpc: received message larger than max (4294967295 vs. ${4 * MiB})`,
    );
    expect((await send(Buffer.from([7, 0, 0, 0, 0])))[0]).toBe("13");
  });

  test("methods are loaded once, at the first call, and again after a failure", async () => {
    let loads = 0;
    await using server = await startServer(async () => {
      loads++;
      if (loads === 1) throw new Error("no disk");
      return [getState(async () => ({}))];
    });
    expect(loads).toBe(0);
    await expect(server.server.warm()).rejects.toThrow("no disk");
    await Promise.all([1, 2, 3].map(() => server.client.unary(Dapr.method.getState, {})));
    expect(loads).toBe(2);
  });

  test("API logging names method, code and user agent", async () => {
    await using server = await startServer([getState(async () => ({}))], { apiLogging: true });
    await server.client.unary(Dapr.method.getState, {});
    const line = server.lines.find((text) => text.startsWith("info gRPC API Called"))!;
    const fields = JSON.parse(line.slice("info gRPC API Called ".length));
    expect(fields).toMatchObject({ method: path, code: 0, duration: expect.any(Number) });
    expect(fields.useragent).toMatch(/^grpc-node-js/);
  });
});

describe("streams", () => {
  test("echo keeps order and content; both sides end with OK", async () => {
    await using server = await startServer([echo()]);
    const stream = server.client.stream(Dapr.method.encryptAlpha1);
    const count = 500;
    for (let i = 0; i < count; i++)
      stream.send({ payload: { seq: BigInt(i), data: Buffer.alloc(i % 97, i) } });
    stream.end();
    let next = 0;
    for await (const { payload } of stream) {
      expect(payload!.seq).toBe(BigInt(next));
      expect(Buffer.from(payload!.data).equals(Buffer.alloc(next % 97, next))).toBe(true);
      next++;
    }
    expect(next).toBe(count);
    expect(server.completed).toEqual(["/dapr.proto.runtime.v1.Dapr/EncryptAlpha1 OK"]);
  });

  test("a slow reader holds the server back, and gets everything in the end", async () => {
    const seen = { messages: 0 };
    await using server = await startServer([echo(seen)]);
    const total = 400;
    const stream = rawCall(server.port, "/dapr.proto.runtime.v1.Dapr/EncryptAlpha1", {});
    stream.pause();
    const body = toBinary(
      Dapr.method.encryptAlpha1.input,
      create(Dapr.method.encryptAlpha1.input, { payload: { data: Buffer.alloc(64 * 1024) } }),
    );
    const writing = (async () => {
      for (let i = 0; i < total; i++) if (!stream.write(encodeFrame(body))) await once(stream, "drain");
      stream.end();
    })();
    await once(stream, "response");
    let last = 0;
    let same = 0;
    await eventually(() => {
      same = seen.messages > 0 && seen.messages === last ? same + 1 : 0;
      last = seen.messages;
      expect(same).toBe(10);
    });
    // 25 MB were written; windows and buffers hold but a part of it.
    expect(seen.messages).toBeLessThan(60);
    let bytes = 0;
    for await (const chunk of stream) bytes += (chunk as Buffer).length;
    await writing;
    expect(bytes).toBe(total * (body.length + 5));
    expect(seen.messages).toBe(total);
    stream.session?.destroy();
  });

  test("a subscription: first message, events, cancel by the client ends the handler", async () => {
    type Answer = MessageInitShape<typeof Dapr.method.subscribeTopicEventsAlpha1.output>;
    const first: Answer = { subscribeTopicEventsResponseType: { case: "initialResponse", value: {} } };
    const event: Answer = { subscribeTopicEventsResponseType: { case: "eventMessage", value: { id: "1" } } };
    let ended: unknown = "running";
    await using server = await startServer([
      streaming(Dapr.method.subscribeTopicEventsAlpha1, async function* (requests, call) {
        const over = aborted(call);
        for await (const request of requests) {
          yield request.subscribeTopicEventsRequestType.case === "initialRequest" ? first : event;
        }
        // grpc-js half-closes before it resets.
        ended = await over;
      }),
    ]);
    const stream = server.client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    stream.send({
      subscribeTopicEventsRequestType: { case: "initialRequest", value: { pubsubName: "p", topic: "t" } },
    });
    expect((await stream.next())!.subscribeTopicEventsResponseType.case).toBe("initialResponse");
    stream.send({ subscribeTopicEventsRequestType: { case: "eventProcessed", value: { id: "0" } } });
    expect((await stream.next())!.subscribeTopicEventsResponseType.value).toMatchObject({ id: "1" });
    stream.cancel();
    await eventually(() => expect(ended).toMatchObject({ grpcCode: GrpcCode.Canceled }));
    expect(server.completed).toEqual(["/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1 Canceled"]);
  });

  test("a handler may end before the client; an error after messages comes in the trailers", async () => {
    await using server = await startServer([
      streaming(Dapr.method.encryptAlpha1, async function* (requests) {
        for await (const { payload } of requests) {
          if (payload!.seq === 9n) return;
          yield { payload: { seq: payload!.seq, data: payload!.data } };
          if (payload!.seq === 5n) {
            throw new ApiError({
              code: "E",
              httpStatus: 400,
              grpcCode: GrpcCode.InvalidArgument,
              message: "five",
            });
          }
        }
      }),
    ]);
    const early = server.client.stream(Dapr.method.encryptAlpha1);
    early.send({ payload: { seq: 1n } });
    expect((await early.next())!.payload!.seq).toBe(1n);
    early.send({ payload: { seq: 9n } });
    expect(await early.next()).toBeUndefined();
    const failing = server.client.stream(Dapr.method.encryptAlpha1);
    failing.send({ payload: { seq: 5n } });
    expect((await failing.next())!.payload!.seq).toBe(5n);
    const error = await failure(failing.next());
    expect([error.code, error.details]).toEqual([3, "five"]);
    await eventually(() => expect(server.completed.length).toBe(2));
  });

  test("a deadline frees a handler that waits for a client that does not read", async () => {
    const ended = Promise.withResolvers<number>();
    const method = streaming(Dapr.method.encryptAlpha1, async function* () {
      let sent = 0;
      try {
        for (;;) {
          yield { payload: { data: Buffer.alloc(64 * 1024) } };
          sent++;
        }
      } finally {
        ended.resolve(sent);
      }
    });
    await using server = await startServer([method]);
    await server.server.warm();
    const stream = rawCall(server.port, "/dapr.proto.runtime.v1.Dapr/EncryptAlpha1", {
      "grpc-timeout": "300m",
    });
    stream.pause();
    expect(await ended.promise).toBeLessThan(20);
    expect(server.completed).toEqual(["/dapr.proto.runtime.v1.Dapr/EncryptAlpha1 DeadlineExceeded"]);
    stream.session?.destroy();
  });

  test("a message above the limit in a stream is refused", async () => {
    await using server = await startServer([echo()], { maxMessageBytes: 1000 });
    const stream = server.client.stream(Dapr.method.encryptAlpha1);
    stream.send({ payload: { data: Buffer.alloc(2000) } });
    const error = await failure(stream.next());
    expect([error.code, error.details]).toEqual([
      8,
      "grpc: received message larger than max (2006 vs. 1000)",
    ]);
  });

  test("close waits for calls in flight, refuses new ones, and ends the rest after the grace", async () => {
    const finish = Promise.withResolvers<void>();
    let began = 0;
    await using server = await startServer([
      getState(async ({ key }, call) => {
        began++;
        if (key === "endless") await aborted(call);
        else await finish.promise;
        return { etag: "done" };
      }),
    ]);
    const slow = server.client.unary(Dapr.method.getState, { key: "slow" });
    const endless = failure(server.client.unary(Dapr.method.getState, { key: "endless" }));
    await eventually(() => expect(began).toBe(2));
    const closing = server.server.close(400);
    finish.resolve();
    expect((await slow).etag).toBe("done");
    const ended = await endless;
    expect([ended.code, ended.details]).toEqual([14, "the sidecar is stopping"]);
    await closing;
  });
});

/** A bare HTTP/2 call on its own connection. */
function rawCall(port: number, callPath: string, headers: Record<string, string>) {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const stream = session.request({
    ":method": "POST",
    ":path": callPath,
    te: "trailers",
    "content-type": "application/grpc",
    ...headers,
  });
  stream.on("error", () => {});
  return stream;
}
