// Resource files that take texts from secret stores and from the environment, in a real sidecar.
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Nats, startApp, startNats, startSidecar, tempDir, type TempDir } from "../../kit/index.ts";
import { fileStore } from "./resources.ts";

let nats: Nats;
let folder: TempDir;
let path: string;
beforeAll(async () => {
  nats = await startNats();
  folder = tempDir("references");
  path = folder.join("secrets.json");
  writeFileSync(path, JSON.stringify({ prefix: "fromsecret", token: '"Bearer x"' }));
});
afterAll(async () => {
  await folder?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

const store = (name: string, item: string, rest = ""): string => `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: ${name} }
spec:
  type: state.in-memory
  version: v1
  metadata:
  - name: keyPrefix
    ${item}
${rest}`;
const auth = "auth: { secretStore: vault }\n";

test("a component takes metadata from a secret, the environment or a template", async () => {
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    env: { PREFIX: "from||env", DAPR_PREFIX: "x", NAMESPACE: "prod" },
    resources: {
      "a-late.yaml": store("secret", "secretKeyRef: { name: prefix }", auth),
      "b.yaml": store("denied", "envRef: DAPR_PREFIX"),
      "c.yaml": store("template", 'value: "{namespace}-{appID}-{uuid}"'),
      "d.yaml": store("parked", "secretKeyRef: { name: prefix }", "auth: { secretStore: attic }\n"),
      "z-vault.yaml": fileStore("vault", path),
    },
  });
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: { name: string }[] }>();
  expect(components.map(({ name }) => name)).toEqual(["vault", "secret", "denied", "template"]);
  const logs = sidecar.logs();
  expect(logs).toMatch(
    /d\.yaml:2: component parked \(state\.in-memory\/v1\) waits for secret store attic, which is/,
  );
  expect(logs).toMatch(/refers to an environment variable that is not allowed: DAPR_PREFIX/);
  const answer = await sidecar.get("/v1.0/state/parked/k");
  expect([answer.status, answer.json<{ errorCode: string }>().errorCode]).toEqual([
    400,
    "ERR_STATE_STORE_NOT_FOUND",
  ]);
});

test("the text of a reference is what the component is opened with", async () => {
  // A key prefix with the separator is refused, which shows the text without showing the secret's use elsewhere.
  const resources = { "a.yaml": store("env", "envRef: PREFIX") };
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    env: { PREFIX: "from||env" },
    resources,
    wait: "none",
  });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toContain("'from||env' can't contain '||'");
});

test("an HTTPEndpoint takes a header from a secret", async () => {
  await using app = await startApp();
  app.on("/hello", (request) => ({ body: String(request.headers["authorization"]) }));
  const endpoint = `
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: { name: outside }
spec:
  baseUrl: http://127.0.0.1:${app.port}
  headers:
  - name: Authorization
    secretKeyRef: { name: token }
${auth}`;
  const resources = { "a.yaml": endpoint, "z.yaml": fileStore("vault", path) };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  expect((await sidecar.get("/v1.0/invoke/outside/method/hello")).text).toBe("Bearer x");
});
