/**
 * CORS as Dapr answers it: any header, a fixed list of methods, no credentials, no age. Works on header values only;
 * the step that uses it stands in http-steps.ts.
 */
import { canonicalHeader } from "../lib/canonical-header.ts";
import type { HttpCall, HttpReply } from "../api/http.ts";

/** Header names and values to add to a reply. */
export type CorsHeaders = Readonly<Record<string, string | readonly string[]>>;

export type Cors = {
  /** Answer of a preflight request. */
  preflight(call: HttpCall): HttpReply;
  /** What an answer to any other request carries. */
  headers(call: HttpCall): CorsHeaders;
};

const methods = new Set(["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const vary = Object.freeze({ Vary: "Origin" });
const preflightVary = ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"];

/** `allowed` as written in `--allowed-origins`: `*`, origins, or origins with one `*` inside. */
export function createCors(allowed: readonly string[]): Cors {
  const matches = originMatcher(allowed);
  const all = allowed.includes("*");
  const allow = (origin: string): string => (all ? "*" : origin);
  return {
    preflight(call) {
      const origin = one(call, "origin");
      const method = one(call, "access-control-request-method").toUpperCase();
      const headers: Record<string, string | readonly string[]> = { Vary: preflightVary };
      if (origin !== "" && matches(origin) && methods.has(method)) {
        headers["Access-Control-Allow-Origin"] = allow(origin);
        headers["Access-Control-Allow-Methods"] = method;
        const wanted = canonicalNames(one(call, "access-control-request-headers"));
        if (wanted.length > 0) headers["Access-Control-Allow-Headers"] = wanted.join(", ");
      }
      return { status: 200, headers };
    },
    headers(call) {
      const origin = one(call, "origin");
      if (origin === "" || !matches(origin) || !methods.has(call.verb)) return vary;
      return { ...vary, "Access-Control-Allow-Origin": allow(origin) };
    },
  };
}

/** A preflight asks by OPTIONS which method the real request may use. */
export function isPreflight(call: HttpCall): boolean {
  return call.verb === "OPTIONS" && one(call, "access-control-request-method") !== "";
}

/** True for origins that the list allows, without regard to case. */
export function originMatcher(allowed: readonly string[]): (origin: string) => boolean {
  if (allowed.includes("*")) return () => true;
  const exact = new Set<string>();
  const globs: (readonly [string, string])[] = [];
  for (const entry of allowed) {
    const lower = entry.toLowerCase();
    const star = lower.indexOf("*");
    if (star < 0) exact.add(lower);
    else globs.push([lower.slice(0, star), lower.slice(star + 1)]);
  }
  return (origin) => {
    const lower = origin.toLowerCase();
    if (exact.has(lower)) return true;
    return globs.some(([head, tail]) => {
      return lower.length >= head.length + tail.length && lower.startsWith(head) && lower.endsWith(tail);
    });
  };
}

/** Header names of a list, each part capitalised: `x-one,CONTENT-type` gives `X-One`, `Content-Type`. */
export function canonicalNames(list: string): string[] {
  const names = list.split(/[ ,]+/).map((name) => name.replace(/[^A-Za-z0-9._-]/g, "").toLowerCase());
  return names.filter((name) => name !== "").map(canonicalHeader);
}

function one(call: HttpCall, name: string): string {
  const value = call.headers[name];
  return (typeof value === "string" ? value : value?.[0]) ?? "";
}
