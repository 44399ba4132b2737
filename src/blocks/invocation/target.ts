/**
 * Which target and method an HTTP request means: header, user part of the URL, or path, in this order; and the rules by
 * which a method name becomes the path that the app sees.
 */
import type { HttpCall } from "../../api/http.ts";
import { goQuote } from "../../lib/go-quote.ts";
import { invalidMethod, invokeFailed, noTarget } from "./errors.ts";

/** `id` is the app id as the client wrote it, for messages and policies. */
export type AppTarget = { readonly id: string; readonly app: string; readonly namespace: string };

const invokePrefix = "/v1.0/invoke/";

/** Id and method (decoded, normalised, without leading slash) of a request. Throws ApiError. */
export function readTarget(call: HttpCall): { id: string; method: string } {
  const named =
    firstOf(call.headers["dapr-app-id"]) ?? basicAppId(call.headers["authorization"] as string | undefined);
  if (named !== undefined && named !== "")
    return { id: named, method: normalizeMethod(named, decode(named, call.rawPath)) };
  const path = decode(undefined, call.rawPath).replace(/^\/+v1\.0\/+invoke\/+/, invokePrefix);
  const split = path.indexOf("/method/");
  if (!path.startsWith(invokePrefix) || split <= invokePrefix.length) throw noTarget();
  const id = decodeId(path.slice(invokePrefix.length, split));
  return { id, method: normalizeMethod(id, path.slice(split + "/method/".length)) };
}

/** The first value of a header that was sent several times and joined. */
function firstOf(value: string | string[] | undefined): string | undefined {
  if (value === undefined || typeof value === "string") return value?.split(", ", 1)[0];
  return value[0];
}

/** `app` or `app.namespace`. */
export function parseAppId(id: string, ownNamespace: string): AppTarget {
  if (id === "") throw invokeFailed(id, "app id is empty");
  const [app = "", namespace = ownNamespace, ...more] = id.split(".");
  if (app === "" || namespace === "" || more.length > 0) throw invokeFailed(id, `invalid app id ${id}`);
  return { id, app, namespace };
}

/** The base URL that an id of the form `http(s)://host[:port][/path]` means; undefined for any other id. */
export function externalUrl(id: string): string | undefined {
  // Clients and proxies that clean paths leave one of the two slashes.
  const match = /^(https?):\/{1,2}(?=[^/])(.*)$/is.exec(id);
  if (match === null) return undefined;
  const url = `${match[1]!.toLowerCase()}://${match[2]!}`;
  if (!URL.canParse(url) || /[?#@]/.test(url)) {
    throw invokeFailed(
      id,
      `invalid URL ${JSON.stringify(id)}, write https://host:port/path without query, fragment or user`,
    );
  }
  return url;
}

/** Password of `Basic base64("dapr-app-id:<id>")`. */
function basicAppId(authorization: string | undefined): string | undefined {
  if (authorization === undefined || !authorization.startsWith("Basic ")) return undefined;
  const parts = Buffer.from(authorization.slice(6), "base64").toString("utf8").split(":");
  return parts.length === 2 && parts[0]!.toLowerCase() === "dapr-app-id" ? parts[1] : undefined;
}

/** An id may be escaped once more than the path, and by the rules of queries. */
function decodeId(text: string): string {
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

/** A path without its escapes; a broken escape has been refused before, so only bytes that are not UTF-8 are left. */
function decode(id: string | undefined, escaped: string): string {
  if (!escaped.includes("%")) return escaped;
  try {
    return decodeURIComponent(escaped);
  } catch {
    const named = id ?? /\/invoke\/+([^/]*)/.exec(escaped)?.[1] ?? "";
    throw invalidMethod(named, `${goQuote(escaped)} is not a valid percent-encoded UTF-8 path`);
  }
}

const needsNormalizing = /\/\/|(^|\/)\.|\/$|^\//;

/**
 * Collapses `//`, resolves `.` and `..`, drops slashes at both ends. Throws ApiError for characters that cannot be in a
 * path; `id` is for its text.
 */
export function normalizeMethod(id: string, method: string): string {
  checkCharacters(id, method);
  if (!needsNormalizing.test(method)) return method;
  const kept: string[] = [];
  for (const part of method.split("/")) {
    if (part === "..") kept.pop();
    else if (part !== "" && part !== ".") kept.push(part);
  }
  return kept.join("/");
}

// oxlint-disable-next-line no-control-regex
const unfit = /[#?\u0000-\u001f\u007f]/;
// oxlint-disable-next-line no-control-regex
const forbidden = /[#?\u0000]/;

function checkCharacters(id: string, method: string): void {
  const found = unfit.exec(method);
  if (found === null) return;
  if (forbidden.test(method))
    throw invalidMethod(id, `method contains forbidden character: ${goQuote(method)}`);
  const position = Buffer.byteLength(method.slice(0, found.index));
  throw invalidMethod(id, `method contains control character at position ${position}: ${goQuote(method)}`);
}

const plainPath = /^[A-Za-z0-9\-._~!$&'()*+,;=:@/[\]]*$/;

/**
 * Path for the app's HTTP server: leading slash, escaped; percent escapes that are already there stay. Throws
 * ApiError for broken ones.
 */
export function methodPath(id: string, method: string): string {
  if (plainPath.test(method)) return `/${method}`;
  const broken = /%(?![0-9A-Fa-f]{2})/.exec(method);
  if (broken !== null) {
    throw invalidMethod(id, `invalid URL escape ${goQuote(method.slice(broken.index, broken.index + 3))}`);
  }
  const escaped = method.replace(/[^A-Za-z0-9\-._~!$&'()*+,;=:@/[\]%]+/g, (run) =>
    encodeURIComponent(run.toWellFormed()),
  );
  return `/${escaped}`;
}
