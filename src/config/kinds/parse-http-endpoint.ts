/**
 * Reads the body of an HTTPEndpoint document.
 */
import { isToken } from "../../lib/http-field.ts";
import { didYouMean } from "../../lib/nearest.ts";
import type { Section } from "../section.ts";
import type { ResourceHeader } from "./header.ts";
import { parseSecretKeyRef } from "./parse-component.ts";
import type {
  EndpointHeader,
  EndpointText,
  EndpointTls,
  HttpEndpointResource,
  Renegotiation,
} from "./http-endpoint.ts";

const RENEGOTIATIONS: readonly Renegotiation[] = ["Never", "OnceAsClient", "FreelyAsClient"];
/** Header names as HTTP has them. */
/** Headers that the sidecar itself writes for each request. */
const OWN_HEADERS = new Set(["connection", "content-length", "host", "transfer-encoding", "upgrade"]);

/** The endpoint, or undefined after noting errors. */
export function parseHttpEndpoint(root: Section, header: ResourceHeader): HttpEndpointResource | undefined {
  root.warnUnknown(["apiVersion", "kind", "metadata", "spec", "auth", "scopes"]);
  const spec = root.section("spec");
  if (spec === undefined) {
    if (root.node("spec") === undefined) {
      root.problems.error(
        root.at,
        "spec is missing, an HTTPEndpoint needs at least spec.baseUrl, such as baseUrl: https://example.com",
      );
    }
    return undefined;
  }
  spec.warnUnknown(["baseUrl", "headers", "clientTLS"]);
  const auth = root.section("auth");
  auth?.warnUnknown(["secretStore"]);
  const endpoint: HttpEndpointResource = {
    kind: "HTTPEndpoint",
    name: header.name,
    namespace: header.namespace,
    baseUrl: parseBaseUrl(spec),
    headers: spec.sections("headers").flatMap(parseHeaderEntry),
    tls: parseTls(spec),
    scopes: header.scopes,
    secretStore: auth?.text("secretStore") || undefined,
    origin: header.origin,
  };
  return root.problems.failed ? undefined : endpoint;
}

function parseBaseUrl(spec: Section): string {
  const text = spec.requiredText("baseUrl", "https://example.com");
  if (text === "") return text;
  const fault = baseUrlFault(text);
  if (fault !== undefined) {
    spec.problems.error(spec.positionOf("baseUrl"), `spec.baseUrl ${JSON.stringify(text)} ${fault}`);
  }
  return text;
}

function baseUrlFault(text: string): string | undefined {
  if (!/^https?:\/\//i.test(text)) return "must start with http:// or https://";
  if (!URL.canParse(text)) return "is no URL, write for example https://example.com:8443/api";
  const url = new URL(text);
  if (url.search !== "" || url.hash !== "" || /[?#]/.test(text))
    return "may not have a query or fragment, write them with each call";
  if (url.username !== "" || url.password !== "")
    return "may not hold a user or password, write an Authorization header";
  return undefined;
}

function parseHeaderEntry(entry: Section): EndpointHeader[] {
  entry.warnUnknown(["name", "value", "secretKeyRef", "envRef"]);
  const name = entry.requiredText("name", "Accept-Language");
  if (name !== "" && (!isToken(name) || OWN_HEADERS.has(name.toLowerCase()))) {
    const fault = isToken(name)
      ? "is set by the sidecar itself, remove it"
      : "is no header name, use letters, digits and -";
    entry.problems.error(
      entry.positionOf("name"),
      `${entry.nameOf("name")} ${JSON.stringify(name)} ${fault}`,
    );
  }
  return [{ name, ...parseText(entry) }];
}

function parseTls(spec: Section): EndpointTls {
  const tls = spec.section("clientTLS");
  tls?.warnUnknown(["rootCA", "certificate", "privateKey", "renegotiation"]);
  return {
    rootCA: parsePem(tls, "rootCA"),
    certificate: parsePem(tls, "certificate"),
    privateKey: parsePem(tls, "privateKey"),
    renegotiation: parseRenegotiation(tls),
  };
}

/** Undefined for a part that is absent or names no source: an empty mapping is common in templates. */
function parsePem(tls: Section | undefined, key: string): EndpointText | undefined {
  const part = tls?.section(key);
  if (part === undefined) return undefined;
  part.warnUnknown(["value", "secretKeyRef", "envRef"]);
  const text = parseText(part);
  const none = text.value === undefined && text.secretKeyRef === undefined && text.envRef === undefined;
  return none ? undefined : text;
}

function parseText(section: Section): EndpointText {
  return {
    path: section.path,
    value: section.anyText("value") || undefined,
    secretKeyRef: parseSecretKeyRef(section),
    envRef: section.text("envRef") || undefined,
    origin: section.problems.origin(section.at),
  };
}

function parseRenegotiation(tls: Section | undefined): Renegotiation {
  const text = tls?.text("renegotiation") ?? "";
  if (text === "") return "Never";
  const found = RENEGOTIATIONS.find((known) => known.toLowerCase() === text.toLowerCase());
  if (found !== undefined) return found;
  const hint = didYouMean(text, RENEGOTIATIONS);
  tls!.problems.error(
    tls!.positionOf("renegotiation"),
    `spec.clientTLS.renegotiation ${JSON.stringify(text)} is not known${hint} (known: ${RENEGOTIATIONS.join(", ")})`,
  );
  return "Never";
}
