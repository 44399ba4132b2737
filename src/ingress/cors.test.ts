import { describe, expect, test } from "vitest";
import type { HttpCall } from "../api/http.ts";
import { canonicalNames, createCors, isPreflight, originMatcher } from "./cors.ts";

const call = (verb: string, headers: Record<string, string>): HttpCall =>
  ({ verb, headers }) as unknown as HttpCall;

describe("which origins match", () => {
  test.each([
    [["*"], "http://a", true],
    [["http://a"], "HTTP://A", true],
    [["HTTP://A"], "http://a", true],
    [["http://a"], "http://b", false],
    [["http://*.a.com"], "http://x.a.com", true],
    [["http://*.a.com"], "http://.a.com", true],
    [["http://*.a.com"], "http://a.com", false],
    [["http://*a"], "http://a", true],
    [["aa*aa"], "aaa", false],
    [["http://a", " http://b"], "http://b", false],
  ])("%j and %s: %s", (allowed, origin, expected) => {
    expect(originMatcher(allowed)(origin)).toBe(expected);
  });
});

test("header names get their canonical case", () => {
  expect(canonicalNames("x-one, CONTENT-type,a_b  c.d")).toEqual(["X-One", "Content-Type", "A_b", "C.d"]);
  expect(canonicalNames("")).toEqual([]);
});

describe("preflight", () => {
  const vary = ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"];
  const ask = (origin: string, method: string, headers = ""): HttpCall =>
    call("OPTIONS", {
      origin,
      "access-control-request-method": method,
      "access-control-request-headers": headers,
    });

  test("is an OPTIONS that names a method", () => {
    expect(isPreflight(ask("http://a", "PUT"))).toBe(true);
    expect(isPreflight(call("OPTIONS", { origin: "http://a" }))).toBe(false);
    expect(isPreflight(call("GET", { "access-control-request-method": "PUT" }))).toBe(false);
  });

  test("allows what matches", () => {
    expect(createCors(["http://a"]).preflight(ask("http://A", "put", "x-b, c"))).toEqual({
      status: 200,
      headers: {
        Vary: vary,
        "Access-Control-Allow-Origin": "http://A",
        "Access-Control-Allow-Methods": "PUT",
        "Access-Control-Allow-Headers": "X-B, C",
      },
    });
    expect(createCors(["*"]).preflight(ask("http://z", "GET")).headers).toMatchObject({
      "Access-Control-Allow-Origin": "*",
    });
  });

  test.each([
    ["another origin", "http://b", "PUT"],
    ["an unknown method", "http://a", "BREW"],
    ["no origin", "", "PUT"],
  ])("%s gets only the Vary lines", (_name, origin, method) => {
    expect(createCors(["http://a"]).preflight(ask(origin, method))).toEqual({
      status: 200,
      headers: { Vary: vary },
    });
  });
});

test("other requests: Vary always, the origin when it matches", () => {
  const cors = createCors(["http://a"]);
  expect(cors.headers(call("GET", {}))).toEqual({ Vary: "Origin" });
  expect(cors.headers(call("GET", { origin: "http://b" }))).toEqual({ Vary: "Origin" });
  expect(cors.headers(call("GET", { origin: "http://a" }))).toEqual({
    Vary: "Origin",
    "Access-Control-Allow-Origin": "http://a",
  });
});
