/**
 * Stands in for the API of a Kubernetes cluster, which cannot be started where tests run: a process with the documented
 * HTTP API of secrets (kubernetes.py), the files that a pod finds mounted, and kubeconfig files.
 */
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Agent, request } from "undici";
import { type Authority, certificateAuthority } from "../certificates.ts";
import { checkout } from "../paths.ts";
import { type TempDir, tempDir } from "../temp-dir.ts";
import { type Server, findProgram, startServer } from "./server.ts";

export type Kubernetes = Server & {
  /** For certificates of users: the common name is the user. */
  readonly authority: Authority;
  /** As in a pod: `token` and `ca.crt`. */
  readonly serviceAccountFolder: string;
  /** Environment that Kubernetes gives to every container. */
  readonly podEnv: Readonly<Record<string, string>>;
  /** From now on only this token counts, as this user's; the pod's file is exchanged. */
  rotateToken(token: string, user: string): void;
  create(namespace: string, name: string, data: Readonly<Record<string, string | Buffer>>): Promise<void>;
  /** Path of a kubeconfig file; `cluster` and `user` as YAML in flow style. */
  kubeconfig(user: string, cluster?: string): string;
};

const variable = "WEFT_TEST_KUBERNETES";
const adminToken = "admin-token";

export async function startKubernetes(): Promise<Kubernetes> {
  const authority = await certificateAuthority("cluster");
  const folder = tempDir("kubernetes-files");
  const mounted = folder.join("serviceaccount");
  mkdirSync(mounted);
  writeFileSync(join(mounted, "ca.crt"), authority.root);
  const rotateToken: Kubernetes["rotateToken"] = (token, user) => {
    writeFileSync(folder.join("tokens.csv"), `${adminToken},admin,0\n${token},${user},1\n`);
    writeFileSync(join(mounted, "token.new"), token);
    renameSync(join(mounted, "token.new"), join(mounted, "token"));
  };
  rotateToken("first-token", "admin");
  const server = await startApi(authority, folder);
  let files = 0;
  return {
    ...server,
    authority,
    serviceAccountFolder: mounted,
    podEnv: { KUBERNETES_SERVICE_HOST: server.host, KUBERNETES_SERVICE_PORT: String(server.port) },
    rotateToken,
    create: (namespace, name, data) => create(server, namespace, name, data),
    kubeconfig(
      user,
      cluster = `{ server: "https://${server.address}", certificate-authority: ${authority.rootFile} }`,
    ) {
      const path = folder.join(`kubeconfig-${files++}`);
      const lines = [
        "apiVersion: v1",
        "kind: Config",
        "current-context: here",
        "contexts: [{ name: here, context: { cluster: c, user: u } }, { name: there, context: {} }]",
        `clusters: [{ name: other, cluster: {} }, { name: c, cluster: ${cluster} }]`,
        `users: [{ name: u, user: ${user} }]`,
      ];
      writeFileSync(path, `${lines.join("\n")}\n`);
      return path;
    },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
      await authority[Symbol.asyncDispose]();
    },
  };
}

async function startApi(authority: Authority, files: TempDir): Promise<Server> {
  const { certificate, privateKey } = await authority.issue("kubernetes", [
    "127.0.0.1",
    "kubernetes.default",
  ]);
  return startServer({
    name: "kubernetes",
    variable,
    async prepare(folder, port) {
      writeFileSync(folder.join("cert.pem"), certificate);
      writeFileSync(folder.join("key.pem"), privateKey);
      const paths = ["state.json", "cert.pem", "key.pem"].map((name) => folder.join(name));
      const program = join(checkout, "test/kit/servers/kubernetes.py");
      const args = [program, String(port), ...paths, authority.rootFile, files.join("tokens.csv")];
      return { command: findProgram("python3", "python3", variable), args };
    },
    ready: async (host, port) => (await call(`https://${host}:${port}/api`, "GET")).status === 404,
  });
}

async function create(
  { address }: Server,
  namespace: string,
  name: string,
  data: Readonly<Record<string, string | Buffer>>,
): Promise<void> {
  const encoded = Object.entries(data).map(([field, value]) => [
    field,
    Buffer.from(value).toString("base64"),
  ]);
  const body = { metadata: { name }, data: Object.fromEntries(encoded) };
  const answer = await call(`https://${address}/api/v1/namespaces/${namespace}/secrets`, "POST", body);
  if (answer.status !== 201) throw new Error(`secret ${name}: ${answer.status} ${answer.text}`);
}

async function call(
  url: string,
  method: "GET" | "POST",
  body?: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  try {
    const headers = { Authorization: `Bearer ${adminToken}` };
    const sent = body === undefined ? null : JSON.stringify(body);
    const { statusCode: status, body: answer } = await request(url, {
      dispatcher,
      method,
      headers,
      body: sent,
    });
    return { status, text: await answer.text() };
  } finally {
    await dispatcher.close();
  }
}
