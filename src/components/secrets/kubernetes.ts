/**
 * Secrets of a Kubernetes cluster: as the service account of the sidecar's pod, or as a kubeconfig file says. The
 * cluster is not asked before the first secret is. Request metadata `namespace` names the namespace; else it is that of
 * the environment variable NAMESPACE, else `defaultNamespace`.
 * No cluster can be started where this is tested: its documented HTTP API stands in for it, in
 * test/kit/servers/kubernetes.py.
 */
import type { Secret, SecretStore } from "../../blocks/secrets/port.ts";
import { MetadataError, type ComponentContext, type MetadataSchema } from "../component.ts";
import { type JsonAnswer, type JsonApi, openJsonApi } from "../connect/json-api.ts";
import {
  type ClusterAccess,
  clusterAround,
  kubeconfigAccess,
  serviceAccountFolder,
} from "./kubernetes-access.ts";

export const type = "secretstores.kubernetes";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  defaultNamespace: {
    kind: "string",
    description: "Namespace where neither the request nor the environment names one.",
  },
  kubeconfigPath: {
    kind: "string",
    description:
      "File that says where the cluster is and who asks; without it, the cluster in which the sidecar runs.",
  },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;
type Metadata = Readonly<Record<string, string>>;

/** Secrets of one answer: with the largest ones it stays below what an answer may have. */
const pageSize = 50;
const maxSecrets = 100_000;

const remedies = {
  unreachable: "see whether the API of the cluster is reachable from here",
  untrusted: "give the cluster's authority in certificate-authority of the kubeconfig file",
  otherName: "give the name of its certificate in tls-server-name of the kubeconfig file",
};

/** Rejects when there is neither a cluster around nor a kubeconfig file that can be used. */
export async function open(context: Context, folder = serviceAccountFolder): Promise<SecretStore> {
  const access = await findAccess(context, folder);
  const { clock, log } = context;
  const { server, tls } = access;
  const what = `Kubernetes at ${server}`;
  const api = await openJsonApi({ tls, remedies, what, probeUrl: `${server}/version`, clock, log });
  return new Kubernetes(access, api, [context.env["NAMESPACE"], context.metadata.defaultNamespace]);
}

async function findAccess({ env, metadata }: Context, folder: string): Promise<ClusterAccess> {
  const { kubeconfigPath = "" } = metadata;
  if (kubeconfigPath === "") {
    const around = await clusterAround(env, folder);
    if (around !== undefined) return around;
    throw new Error("the sidecar does not run in a Kubernetes cluster; set kubeconfigPath to reach one");
  }
  try {
    return await kubeconfigAccess(kubeconfigPath);
  } catch (cause) {
    const text = `metadata field "kubeconfigPath": ${(cause as Error).message}`;
    throw new MetadataError("kubeconfigPath", text, cause);
  }
}

class Kubernetes implements SecretStore {
  readonly #access: ClusterAccess;
  readonly #api: JsonApi;
  readonly #namespaces: readonly (string | undefined)[];

  /** `namespaces`: where the request names none, in the order in which they count. */
  constructor(access: ClusterAccess, api: JsonApi, namespaces: readonly (string | undefined)[]) {
    this.#access = access;
    this.#api = api;
    this.#namespaces = namespaces;
  }

  async get(name: string, metadata: Metadata, signal: AbortSignal): Promise<Secret> {
    const folder = this.#path(metadata);
    // What is no name of a secret must not lead to another part of the API.
    if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)) throw new Error(`secrets "${name}" not found`);
    const answer = await this.#call(`${folder}/${name}`, signal);
    if (answer.status !== 200) throw refusal(answer, "get");
    return fieldsOf(parsed(answer));
  }

  async getAll(metadata: Metadata, signal: AbortSignal): Promise<Readonly<Record<string, Secret>>> {
    const folder = this.#path(metadata);
    const found = new Map<string, Secret>();
    for (let next: string | undefined = ""; next !== undefined;) {
      const query = new URLSearchParams({ limit: String(pageSize), ...(next !== "" && { continue: next }) });
      const answer = await this.#call(`${folder}?${query.toString()}`, signal);
      if (answer.status !== 200) throw refusal(answer, "list");
      const list = parsed(answer);
      for (const item of list.items ?? []) found.set(item.metadata?.name ?? "", fieldsOf(item));
      if (found.size > maxSecrets) throw new Error(`the namespace has more than ${maxSecrets} secrets`);
      next = list.metadata?.continue || undefined;
    }
    return Object.fromEntries(found);
  }

  awaySinceMs(): number | undefined {
    return this.#api.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#api.close();
  }

  #path({ namespace: asked }: Metadata): string {
    const namespace = [asked, ...this.#namespaces].find((name) => name !== undefined && name !== "");
    if (namespace === undefined)
      throw new Error(
        "no namespace is given: set metadata namespace of the request, the environment variable NAMESPACE, " +
          "or defaultNamespace of the component",
      );
    if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(namespace))
      throw new Error(`"${namespace}" is no name of a namespace`);
    return `/api/v1/namespaces/${namespace}/secrets`;
  }

  async #call(path: string, signal: AbortSignal): Promise<JsonAnswer> {
    const headers = { Accept: "application/json", ...(await this.#access.headers()) };
    return this.#api.request({ url: this.#access.server + path, headers, signal });
  }
}

/** What is read of a Secret, of a list of them, and of the Status of a refusal. */
type Resource = {
  readonly metadata?: { readonly name?: string; readonly continue?: string };
  readonly data?: Readonly<Record<string, string>> | null;
  readonly items?: readonly Resource[];
  readonly message?: unknown;
};

function parsed(answer: JsonAnswer): Resource {
  try {
    return Object(JSON.parse(answer.text)) as Resource;
  } catch {
    // The engine's own message would quote from the secret.
    throw new Error("what answers is no API of Kubernetes: it sends no JSON; correct the address");
  }
}

function fieldsOf({ data }: Resource): Secret {
  const fields = Object.entries(data ?? {});
  return Object.fromEntries(fields.map(([name, text]) => [name, Buffer.from(text, "base64").toString()]));
}

function refusal(answer: JsonAnswer, verb: "get" | "list"): Error {
  const { status } = answer;
  let said = "";
  try {
    said = String(parsed(answer).message ?? "").slice(0, 500);
  } catch {
    // A proxy in between has its own pages.
  }
  if (status === 404 && said !== "") return new Error(said);
  if (status === 403)
    return new Error(`${said} (403); give the account a Role with the verb ${verb} on secrets`);
  if (status === 401)
    return new Error(
      "Kubernetes refuses the credentials (401); renew the token or certificate they come from",
    );
  return new Error(`Kubernetes answers ${status}${said === "" ? "" : `: ${said}`}`);
}
