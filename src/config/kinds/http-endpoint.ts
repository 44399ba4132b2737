/**
 * An HTTPEndpoint resource: a server outside the mesh that is called under a name. `resolveHttpEndpoint` takes its
 * texts from where they are kept. Nothing here reads files or YAML.
 */
import { createSecureContext } from "node:tls";
import type { Environment } from "../flags.ts";
import type { Origin, Problem } from "../problem.ts";
import { isEnvAllowed, type SecretKeyRef, type SecretSource, unquoteOnce } from "./component.ts";

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

/** Where an endpoint takes its texts from. */
export interface EndpointSurroundings extends SecretSource {
  readonly env: Environment;
  readonly namespace: string;
}

/**
 * Takes every text from the resource, the environment or a secret store. A secret that cannot be read fails the
 * endpoint: a call without its credentials would only fail later.
 */
export async function resolveHttpEndpoint(
  resource: HttpEndpointResource,
  surroundings: EndpointSurroundings,
): Promise<ResolvedHttpEndpoint> {
  const problems: Problem[] = [];
  const read = async (text: EndpointText | undefined): Promise<string | undefined> =>
    text === undefined ? undefined : readText(text, resource, surroundings, problems);
  const headers: string[] = [];
  for (const header of resource.headers)
    headers.push(header.name, checkHeader(header, (await read(header)) ?? "", problems));
  const { rootCA, certificate, privateKey, renegotiation } = resource.tls;
  const endpoint: HttpEndpoint = {
    name: resource.name,
    baseUrl: resource.baseUrl,
    headers,
    rootCA: await read(rootCA),
    certificate: await read(certificate),
    privateKey: await read(privateKey),
    renegotiation,
  };
  checkTls(resource, endpoint, problems);
  const failed = problems.some(({ severity }) => severity === "error");
  return { endpoint: failed ? undefined : endpoint, problems };
}

async function readText(
  text: EndpointText,
  resource: HttpEndpointResource,
  surroundings: EndpointSurroundings,
  problems: Problem[],
): Promise<string | undefined> {
  const { env } = surroundings;
  if (text.value !== undefined) return text.value;
  if (text.envRef !== undefined) {
    if (isEnvAllowed(text.envRef, env)) return unquoteOnce(env[text.envRef] ?? "");
    const message = `${text.path} refers to an environment variable that is not allowed: ${text.envRef}; it is empty`;
    problems.push({ ...text.origin, severity: "warning", message });
    return "";
  }
  if (text.secretKeyRef === undefined) return undefined;
  try {
    return await readSecretText(text.secretKeyRef, resource, surroundings);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `${text.path}.secretKeyRef cannot be read: ${reason}`;
    problems.push({ ...text.origin, severity: "error", message });
    return undefined;
  }
}

/** Rejects with what is missing and what to do about it. */
async function readSecretText(
  reference: SecretKeyRef,
  resource: HttpEndpointResource,
  { defaultSecretStore, readSecret, namespace }: EndpointSurroundings,
): Promise<string> {
  const store = resource.secretStore ?? defaultSecretStore;
  if (store === undefined) throw new Error("auth.secretStore is not set, name the secret store there");
  const secret = await readSecret(store, reference.name, { namespace: resource.namespace ?? namespace });
  if (secret === undefined) throw new Error(`no secret store ${store} is loaded, add that component`);
  const key = reference.key === "" ? reference.name : reference.key;
  if (Object.hasOwn(secret, key)) return unquoteOnce(secret[key] ?? "");
  throw new Error(`secret ${reference.name} of ${store} has no key ${key}`);
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
