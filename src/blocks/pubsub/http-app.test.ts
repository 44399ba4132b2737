import { describe, expect, it } from "vitest";
import type { AppChannel, AppHttpRequest } from "../../app/channel.ts";
import type { AppEvent } from "./event.ts";
import { deliverToHttpApp, readResponse, targetOf } from "./http-app.ts";
import { deliverySpan } from "./trace.ts";
import { zeroTraceparent } from "../../telemetry/tracing/trace-context.ts";
import { passingTracer } from "../../telemetry/tracing/tracer.ts";

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

describe("the response of an HTTP app", () => {
  it.each([
    [200, "", "success"],
    [204, "", "success"],
    [299, "not json", "success"],
    [200, "[1]", "success"],
    [200, "null", "success"],
    [200, '"RETRY"', "success"],
    [200, "{}", "success"],
    [200, '{"status":""}', "success"],
    [200, '{"status":5}', "success"],
    [200, '{"status":"SUCCESS"}', "success"],
    [200, '{"Status":"SUCCESS"}', "success"],
    [200, '{"status":"RETRY"}', "retry"],
    [200, '{"status":"success"}', "retry"],
    [200, '{"status":"unknown"}', "retry"],
    [200, '{"status":"DROP"}', "drop asked"],
    [404, "", "drop"],
    [404, '{"status":"SUCCESS"}', "drop"],
    [100, "", "retry"],
    [301, "", "retry"],
    [400, "", "retry"],
    [500, "boom", "retry"],
  ])("%i %s means %s", (status, body, meaning) => {
    const answer = readResponse({ status, headers: [], body: Buffer.from(body) });
    expect(answer.kind === "drop" && answer.asked ? "drop asked" : answer.kind).toBe(meaning);
    expect(answer.kind !== "drop" || !answer.lost).toBe(true);
  });
});

describe("the path of a route", () => {
  it.each([
    ["orders", "/orders"],
    ["/orders/", "/orders"],
    ["//a//b/../c", "/a/c"],
    ["", "/"],
    ["/", "/"],
    ["/a b/ä", "/a%20b/%C3%A4"],
    ["/a%20b", "/a%20b"],
    ["/a?x=1/..", "/a?x=1/.."],
    ["/a#frag", "/a"],
  ])("%s is %s", (route, target) => expect(targetOf(route)).toBe(target));
});

describe("delivery to an HTTP app", () => {
  const event = (given: Partial<AppEvent>): AppEvent => ({
    pubsub: "pubsub",
    topic: "orders",
    body: Buffer.from("{}"),
    attributes: {},
    metadata: {},
    ...given,
  });

  async function requestOf(given: Partial<AppEvent>, path = "orders"): Promise<AppHttpRequest> {
    const asked: AppHttpRequest[] = [];
    const app = {
      http: async (request: AppHttpRequest) => {
        asked.push(request);
        return { status: 200, headers: [], body: Buffer.alloc(0) };
      },
    } as unknown as AppChannel;
    await deliverToHttpApp(app)(event(given), path, new AbortController().signal);
    return asked[0]!;
  }

  it("posts the body with metadata as headers", async () => {
    const metadata = {
      pubsubName: "pubsub",
      ttlInSeconds: "5",
      "x-Ünsafe": "no",
      "Content-Type": "no",
      connection: "no",
      "grpc-trace-bin": "no",
      note: "grün\r\nx: y",
    };
    const request = await requestOf({ metadata, body: Buffer.from("body") });
    expect(request).toMatchObject({ verb: "POST", path: "/orders", body: Buffer.from("body") });
    expect(request.headers).toEqual([
      ...["Pubsubname", "pubsub", "Ttlinseconds", "5", "Note", Buffer.from("grün  x: y").toString("latin1")],
      ...["Content-Type", "application/cloudevents+json"],
    ]);
  });

  it.each([
    [{ traceparent: parent }, parent],
    [{ traceid: parent }, parent],
    [{ traceparent: "" }, zeroTraceparent],
    [{ traceid: "bad" }, zeroTraceparent],
    [{}, undefined],
    [{ traceparent: 5 }, undefined],
  ])("sends the trace of %j", async (attributes, sent) => {
    const { headers } = await requestOf({
      span: deliverySpan(passingTracer(), { attributes, topic: "orders" }),
      metadata: { traceparent: "from metadata" },
    });
    const at = headers.indexOf("traceparent");
    expect(at === -1 ? undefined : headers[at + 1]).toBe(sent);
  });

  it("answers retry when the app cannot be reached", async () => {
    const app = { http: () => Promise.reject(new Error("refused")) } as unknown as AppChannel;
    const answer = await deliverToHttpApp(app)(event({}), "x", new AbortController().signal);
    expect(answer).toMatchObject({ kind: "retry", error: { message: "refused" }, unserved: false });
  });
});
