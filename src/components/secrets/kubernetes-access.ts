/**
 * The way to the API of a Kubernetes cluster: as the service account of the pod that this runs in, or as the current
 * context of a kubeconfig file says. Tokens and certificates in files of their own are read at each use, since
 * Kubernetes exchanges them while pods run.
 */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { jsonFields } from "../../lib/json-fields.ts";
import { parseYaml, yamlToJson } from "../../lib/yaml.ts";
import type { TlsChoice } from "../connect/json-api.ts";

export type ClusterAccess = {
  /** Address of the API without a slash at the end. */
  readonly server: string;
  readonly tls: () => Promise<TlsChoice>;
  /** What shows who asks. */
  readonly headers: () => Promise<Readonly<Record<string, string>>>;
};

/** Where Kubernetes mounts the token and the authority of a pod's service account. */
export const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";

/** Undefined where there is no cluster around. Rejects when the service account's files cannot be read. */
export async function clusterAround(
  env: Readonly<Record<string, string | undefined>>,
  folder: string,
): Promise<ClusterAccess | undefined> {
  const { KUBERNETES_SERVICE_HOST: host = "", KUBERNETES_SERVICE_PORT: port = "443" } = env;
  if (host === "") return undefined;
  const access: ClusterAccess = {
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    tls: async () => ({ ca: await readText(`${folder}/ca.crt`) }),
    headers: async () => bearer(await readText(`${folder}/token`)),
  };
  await Promise.all([access.tls(), access.headers()]).catch((cause: unknown) => {
    const fix = "let the pod mount the token of its service account, or set kubeconfigPath";
    throw new Error(`${(cause as Error).message}; ${fix}`, { cause });
  });
  return access;
}

/** Rejects with an Error that says what in the file is missing or cannot be used here. */
export async function kubeconfigAccess(path: string): Promise<ClusterAccess> {
  const { cluster, user } = await currentContext(path);
  const file = (name: string): string => resolve(dirname(path), name);
  /** The text of a field `<name>-data` in base64, else of the file that the field `<name>` gives. */
  const pemOf = (fields: Fields, name: string): (() => Promise<string | undefined>) => {
    const data = fields.text(`${name}-data`);
    if (data !== "") {
      const text = Buffer.from(data, "base64").toString();
      return () => Promise.resolve(text);
    }
    const given = fields.text(name);
    return () => (given === "" ? Promise.resolve(undefined) : readText(file(given)));
  };
  cluster.refuse("proxy-url");
  for (const name of ["exec", "auth-provider", "as"]) user.refuse(name);
  const server = cluster.text("server").replace(/\/+$/, "");
  if (!/^https?:\/\/./.test(server)) throw new Error(`${cluster.what} has no "server" that is an address`);
  const [ca, cert, key] = [
    pemOf(cluster, "certificate-authority"),
    pemOf(user, "client-certificate"),
    pemOf(user, "client-key"),
  ];
  const servername = cluster.text("tls-server-name");
  const unverified = cluster.flag("insecure-skip-tls-verify");
  const access: ClusterAccess = {
    server,
    async tls() {
      const texts = { ca: await ca(), cert: await cert(), key: await key() };
      return {
        ...(Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== undefined)) as TlsChoice),
        ...(servername !== "" && { servername }),
        ...(unverified && { rejectUnauthorized: false }),
      };
    },
    headers: identityOf(user, file),
  };
  await Promise.all([access.tls(), access.headers()]);
  return access;
}

function identityOf(user: Fields, file: (name: string) => string): ClusterAccess["headers"] {
  const [tokenFile, token] = [user.text("tokenFile"), user.text("token")];
  if (tokenFile !== "") return async () => bearer(await readText(file(tokenFile)));
  if (token !== "") return () => Promise.resolve(bearer(token));
  const name = user.text("username");
  if (name === "") return () => Promise.resolve({});
  const basic = Buffer.from(`${name}:${user.text("password")}`).toString("base64");
  return () => Promise.resolve({ Authorization: `Basic ${basic}` });
}

function bearer(token: string): Readonly<Record<string, string>> {
  const trimmed = token.trim();
  // A header with other characters would be refused with a message that shows it.
  if (!/^[!-~]+$/.test(trimmed)) throw new Error("the token for Kubernetes is empty or no token");
  return { Authorization: `Bearer ${trimmed}` };
}

/** Members of a part of the file, by the names that kubeconfig files have. */
type Fields = {
  readonly what: string;
  text(name: string): string;
  flag(name: string): boolean;
  /** Throws when the member is there: it is not supported. */
  refuse(name: string): void;
};

async function currentContext(path: string): Promise<{ readonly cluster: Fields; readonly user: Fields }> {
  const json = jsonFields((message) => new Error(`${path}: ${message}`));
  const [document] = parseYaml(await readText(path));
  if (document?.error !== undefined)
    throw new Error(`${path}:${document.error.line}: ${document.error.message}`);
  if (document?.root === undefined) throw new Error(`${path} is empty; it must be a kubeconfig file`);
  const config = json.object(yamlToJson(document.root), "the file");
  /** The entry of that name in a list such as `users: [{name, user}]`. */
  const entry = (kind: "context" | "cluster" | "user", name: string): Record<string, unknown> => {
    const found = json
      .array(config[`${kind}s`], `"${kind}s"`)
      .map((item, index) => json.object(item, `entry ${index} of "${kind}s"`))
      .find((item) => item["name"] === name);
    if (found === undefined) throw new Error(`${path}: "${kind}s" has no entry with the name "${name}"`);
    return json.object(found[kind], `${kind} "${name}"`);
  };
  const fields = (kind: "cluster" | "user", name: string): Fields => {
    const members = name === "" ? {} : entry(kind, name);
    const what = `${path}: ${kind} "${name}"`;
    return {
      what,
      text: (member) => json.text(members[member], `"${member}" of ${kind} "${name}"`),
      flag: (member) => members[member] === true,
      refuse(member) {
        if (members[member] === undefined || members[member] === null || members[member] === "") return;
        throw new Error(`${what} has "${member}", which is not supported here; use a token or a certificate`);
      },
    };
  };
  const current = json.text(config["current-context"], '"current-context"');
  if (current === "") throw new Error(`${path} has no "current-context"; set it to the context to use`);
  const context = entry("context", current);
  return {
    cluster: fields("cluster", json.text(context["cluster"], `"cluster" of context "${current}"`)),
    user: fields("user", json.text(context["user"], `"user" of context "${current}"`)),
  };
}

function readText(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: unknown) => {
    throw new Error(`${path} cannot be read: ${(cause as Error).message}`, { cause });
  });
}
