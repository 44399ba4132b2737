/**
 * An HTTPEndpoint resource: a server outside the mesh that is called under a name. `resolveHttpEndpoint` takes its
 * texts from where they are kept. Nothing here reads files or YAML.
 */
import { createSecureContext } from "node:tls";
import type { Environment } from "../flags.ts";
import type { Origin, Problem } from "../problem.ts";
import { isEnvAllowed, type SecretKeyRef } from "./component.ts";

/** A text of the resource; where it is taken from is not yet decided. */
export interface EndpointText {
  /** Path in the resource, for messages, such as `spec.headers[0]`. */
  readonly path: string;
  readonly value: string | undefined;
  readonly secretKeyRef: SecretKeyRef | undefined;
  readonly envRef: string | undefined;
  readonly origin: Origin;
}

export interface EndpointHeader extends EndpointText {
  readonly name: string;
}

/** Whether a server may ask for a new handshake on a TLS 1.2 connection. */
export type Renegotiation = "Never" | "OnceAsClient" | "FreelyAsClient";

export interface EndpointTls {
  readonly rootCA: EndpointText | undefined;
  readonly certificate: EndpointText | undefined;
  readonly privateKey: EndpointText | undefined;
  readonly renegotiation: Renegotiation;
}

export interface HttpEndpointResource {
  readonly kind: "HTTPEndpoint";
  readonly name: string;
  readonly namespace: string | undefined;
  /** `http://` or `https://` with a host, as written. */
  readonly baseUrl: string;
  readonly headers: readonly EndpointHeader[];
  readonly tls: EndpointTls;
  /** Ids of the apps that may use it; empty for all. */
  readonly scopes: readonly string[];
  /** `auth.secretStore`. */
  readonly secretStore: string | undefined;
  readonly origin: Origin;
}

/** An endpoint as it is called. */
export interface HttpEndpoint {
  readonly name: string;
  readonly baseUrl: string;
  /** Flat name, value list. */
  readonly headers: readonly string[];
  /** PEM texts; undefined when not given. */
  readonly rootCA: string | undefined;
  readonly certificate: string | undefined;
  readonly privateKey: string | undefined;
  readonly renegotiation: Renegotiation;
}

export interface ResolvedHttpEndpoint {
  /** Undefined when a problem of severity `error` was found. */
  readonly endpoint: HttpEndpoint | undefined;
  readonly problems: readonly Problem[];
}

/** Takes every text from the resource or the environment. A text from a secret is an error: nothing can read it yet. */
export function resolveHttpEndpoint(resource: HttpEndpointResource, env: Environment): ResolvedHttpEndpoint {
  const problems: Problem[] = [];
  const read = (text: EndpointText | undefined): string | undefined =>
    text === undefined ? undefined : readText(text, env, problems);
  const headers = resource.headers.flatMap((header) => [
    header.name,
    checkHeader(header, read(header) ?? "", problems),
  ]);
  const { rootCA, certificate, privateKey, renegotiation } = resource.tls;
  const endpoint: HttpEndpoint = {
    name: resource.name,
    baseUrl: resource.baseUrl,
    headers,
    rootCA: read(rootCA),
    certificate: read(certificate),
    privateKey: read(privateKey),
    renegotiation,
  };
  checkTls(resource, endpoint, problems);
  const failed = problems.some(({ severity }) => severity === "error");
  return { endpoint: failed ? undefined : endpoint, problems };
}

function readText(text: EndpointText, env: Environment, problems: Problem[]): string | undefined {
  if (text.value !== undefined) return text.value;
  if (text.envRef !== undefined) {
    if (isEnvAllowed(text.envRef, env)) return env[text.envRef] ?? "";
    const message = `${text.path} refers to an environment variable that is not allowed: ${text.envRef}; it is empty`;
    problems.push({ ...text.origin, severity: "warning", message });
    return "";
  }
  if (text.secretKeyRef !== undefined) {
    const fix = "this sidecar has no secret stores yet; write value: or envRef: instead";
    const message = `${text.path}.secretKeyRef cannot be read, ${fix}`;
    problems.push({ ...text.origin, severity: "error", message });
  }
  return undefined;
}

/** A value that no HTTP client can send would fail every call, so it fails the resource. */
function checkHeader(header: EndpointHeader, value: string, problems: Problem[]): string {
  if (/[\r\n\0]/.test(value)) {
    const message = `${header.path}: the value of ${header.name} holds a line break or NUL, write it on one line`;
    problems.push({ ...header.origin, severity: "error", message });
  }
  return value;
}

function checkTls(resource: HttpEndpointResource, endpoint: HttpEndpoint, problems: Problem[]): void {
  const { tls } = resource;
  if (problems.some(({ severity }) => severity === "error")) return;
  const { rootCA: ca, certificate: cert, privateKey: key } = endpoint;
  if ((cert === undefined) !== (key === undefined)) {
    const [given, missing] =
      cert === undefined ? ["privateKey", "certificate"] : ["certificate", "privateKey"];
    const { origin } = (tls.certificate ?? tls.privateKey)!;
    const message = `spec.clientTLS.${given} needs spec.clientTLS.${missing} beside it`;
    problems.push({ ...origin, severity: "error", message });
    return;
  }
  if (ca !== undefined)
    tryPem(
      tls.rootCA!,
      "one or more certificates",
      () => void createSecureContext({ ca: checkPem(ca) }),
      problems,
    );
  if (cert !== undefined && key !== undefined) {
    tryPem(
      tls.certificate!,
      "a certificate that belongs to spec.clientTLS.privateKey",
      () => void createSecureContext({ cert, key }),
      problems,
    );
  }
}

/** OpenSSL silently takes a CA text that holds no certificate at all. */
function checkPem(text: string): string {
  if (!text.includes("-----BEGIN CERTIFICATE-----"))
    throw new Error("it has no line -----BEGIN CERTIFICATE-----");
  return text;
}

function tryPem(text: EndpointText, wanted: string, load: () => void, problems: Problem[]): void {
  try {
    load();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `${text.path} must be ${wanted} in PEM form: ${reason}`;
    problems.push({ ...text.origin, severity: "error", message });
  }
}
