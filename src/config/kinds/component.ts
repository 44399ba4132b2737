/**
 * A Component resource, and what it means for one sidecar: which components are denied, and the metadata texts
 * after environment, secrets and templates. Nothing here reads files or YAML.
 */
import { goUnquote } from "../../lib/go-quote.ts";
import type { Environment } from "../flags.ts";
import type { Origin } from "../problem.ts";

export interface SecretKeyRef {
  readonly name: string;
  /** Empty means the same as `name`. */
  readonly key: string;
}

/** One entry of `spec.metadata`; where it takes its text from is not yet decided. */
export interface MetadataItem {
  readonly name: string;
  /** Text of `value`; undefined when there is none (or null). */
  readonly value: string | undefined;
  readonly secretKeyRef: SecretKeyRef | undefined;
  /** Environment variable that gives the text when there is no value. */
  readonly envRef: string | undefined;
  readonly origin: Origin;
}

export interface ComponentResource {
  readonly kind: "Component";
  readonly name: string;
  readonly namespace: string | undefined;
  /** As written, such as `state.redis`. */
  readonly type: string;
  readonly typeOrigin: Origin;
  /** As written; empty when there is none. */
  readonly version: string;
  /** In file order; a name occurs once, its last entry counts. */
  readonly metadata: readonly MetadataItem[];
  readonly initTimeoutMs: number;
  readonly ignoreErrors: boolean;
  /** Ids of the apps that may use it; empty for all. */
  readonly scopes: readonly string[];
  /** `auth.secretStore`. */
  readonly secretStore: string | undefined;
  readonly origin: Origin;
}

export const DEFAULT_INIT_TIMEOUT_MS = 5_000;

/** `<name> (<type>/<version>)`, or without the slash when there is no version, as Dapr's logs name a component. */
export function componentLabel({ name, type, version }: ComponentResource): string {
  return version === "" ? `${name} (${type})` : `${name} (${type}/${version})`;
}

/**
 * True when the Configuration's `spec.components.deny` forbids the component. A list that is not empty also drops
 * components without a version.
 */
export function isDenied(component: ComponentResource, deny: readonly string[]): boolean {
  if (deny.length === 0) return false;
  const { type, version } = component;
  return version === "" || deny.includes(type) || deny.includes(`${type}/${version}`);
}

/** Where references to secrets are looked up. */
export interface SecretSource {
  /** Store for references without `auth.secretStore`; `kubernetes` in Kubernetes mode. */
  readonly defaultSecretStore: string | undefined;
  /** The secret's keys and texts; undefined when the store is not loaded. Rejects when the lookup fails. */
  readonly readSecret: (
    store: string,
    secret: string,
    metadata: Readonly<Record<string, string>>,
  ) => Promise<Readonly<Record<string, string>> | undefined>;
}

/** What `resolveMetadata` needs to know about the sidecar. */
export interface MetadataSurroundings extends SecretSource {
  readonly appId: string;
  readonly namespace: string;
  readonly env: Environment;
  /** A fresh UUID for each `{uuid}`. */
  readonly uuid: () => string;
}

export interface ResolvedMetadata {
  /** Texts by name, names as written. */
  readonly texts: ReadonlyMap<string, string>;
  readonly warnings: readonly MetadataWarning[];
  /** A secret store that is named but not loaded: the component must wait for it. */
  readonly waitingFor: string | undefined;
}

/** A metadata field that cannot be used; opening the component fails with this text and the line of the field. */
export class MetadataError extends Error {
  override readonly name = "MetadataError";
  /** Name of the field in any letter case. */
  readonly field: string;

  constructor(field: string, message: string, cause?: unknown) {
    super(message, { cause });
    this.field = field;
  }
}

/** A MetadataError about what is read before the component is opened: it counts as a failure to create it. */
export class CreationError extends MetadataError {}

/** What is odd about a metadata field and does not keep the component from being opened. */
export interface MetadataWarning {
  /** Name of the field, as written. */
  readonly field: string;
  /** A sentence to log. */
  readonly message: string;
}

/**
 * The texts that a component is opened with: `value`, else the environment variable, else the secret, with the
 * templates `{uuid}`, `{podName}`, `{namespace}` and `{appID}` filled in.
 * @throws {MetadataError} when `{podName}` is used without a POD_NAME.
 */
export async function resolveMetadata(
  component: ComponentResource,
  surroundings: MetadataSurroundings,
): Promise<ResolvedMetadata> {
  const warnings: MetadataWarning[] = [];
  const texts = new Map<string, string>();
  const store = component.secretStore ?? surroundings.defaultSecretStore;
  let storeMissing = false;
  for (const item of component.metadata) {
    let text = item.value;
    if (text === undefined && item.envRef !== undefined) {
      text = readEnv(component, item, item.envRef, surroundings.env, warnings);
    } else if (item.secretKeyRef !== undefined && !storeMissing) {
      if (store === undefined) {
        storeMissing = true;
        const message = `${componentLabel(component)}: ${item.name} refers to a secret but auth.secretStore is not set`;
        warnings.push({ field: item.name, message });
      } else {
        const found = await lookUp(component, item, item.secretKeyRef, store, surroundings, warnings);
        if (found === "not loaded") return { texts: new Map(), warnings, waitingFor: store };
        text = found ?? text;
      }
    }
    texts.set(item.name, fillTemplates(item.name, text ?? "", surroundings));
  }
  return { texts, warnings, waitingFor: undefined };
}

/** Variables that a resource file must not show to a component. */
export function isEnvAllowed(name: string, env: Environment): boolean {
  const upper = name.toUpperCase();
  if (upper === "APP_API_TOKEN" || upper.startsWith("DAPR_") || name.includes(" ")) return false;
  const allowed = env["DAPR_ENV_KEYS"];
  return (
    allowed === undefined || allowed === "" || [name, upper].some((key) => allowed.split(" ").includes(key))
  );
}

function readEnv(
  component: ComponentResource,
  item: MetadataItem,
  name: string,
  env: Environment,
  warnings: MetadataWarning[],
): string | undefined {
  if (isEnvAllowed(name, env)) return unquoteOnce((Object.hasOwn(env, name) ? env[name] : undefined) ?? "");
  const message = `${componentLabel(component)} refers to an environment variable that is not allowed: ${name}`;
  warnings.push({ field: item.name, message });
  return undefined;
}

async function lookUp(
  component: ComponentResource,
  item: MetadataItem,
  reference: SecretKeyRef,
  store: string,
  { readSecret, namespace }: MetadataSurroundings,
  warnings: MetadataWarning[],
): Promise<string | undefined> {
  try {
    const secret = await readSecret(store, reference.name, { namespace: component.namespace ?? namespace });
    if (secret === undefined) return "not loaded";
    const key = reference.key === "" ? reference.name : reference.key;
    return Object.hasOwn(secret, key) ? unquoteOnce(secret[key] ?? "") : undefined;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `${componentLabel(component)}: getting secret ${reference.name} from ${store} failed: ${reason}`;
    warnings.push({ field: item.name, message });
    return undefined;
  }
}

/** A text that is one whole Go-quoted literal without its quotes; any other as it is. */
export function unquoteOnce(text: string): string {
  return goUnquote(text) ?? text;
}

function fillTemplates(
  name: string,
  text: string,
  { appId, namespace, env, uuid }: MetadataSurroundings,
): string {
  if (!text.includes("{")) return text;
  const podName = env["POD_NAME"] ?? "";
  if (text.includes("{podName}") && podName === "") {
    throw new MetadataError(
      name,
      `failed to parse metadata: property ${name} refers to {podName} but podName is not set`,
    );
  }
  return text
    .replaceAll("{uuid}", () => uuid())
    .replaceAll("{podName}", () => podName)
    .replaceAll("{namespace}", () => `${namespace}.${appId}`)
    .replaceAll("{appID}", () => appId);
}
