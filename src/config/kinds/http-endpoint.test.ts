import { describe, expect, it } from "vitest";
import { parseResources } from "../parse-resources.ts";
import { formatProblem } from "../problem.ts";
import {
  type HttpEndpointResource,
  type ResolvedHttpEndpoint,
  resolveHttpEndpoint,
} from "./http-endpoint.ts";

function parse(spec: string, rest = ""): ReturnType<typeof parseResources> {
  const head = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata:\n  name: shop\n";
  return parseResources(`${head}spec:\n${spec}${rest}`, "f.yaml");
}

function parsed(spec: string, rest = ""): HttpEndpointResource {
  const { resources, problems } = parse(spec, rest);
  expect(problems).toEqual([]);
  return resources[0] as HttpEndpointResource;
}

const vault: Readonly<Record<string, string>> = { token: '"quoted"', other: "x" };

/** In a sidecar whose only secret store is `vault`. */
function resolve(
  resource: HttpEndpointResource,
  env: Record<string, string> = {},
): Promise<ResolvedHttpEndpoint> {
  return resolveHttpEndpoint(resource, {
    env,
    namespace: "default",
    defaultSecretStore: undefined,
    async readSecret(store, secret, { namespace }) {
      if (secret === "broken") throw new Error(`no access from ${namespace}`);
      return store === "vault" ? vault : undefined;
    },
  });
}

/** Problems of reading and resolving, one line each. */
async function problems(spec: string, env: Record<string, string> = {}, rest = ""): Promise<string[]> {
  const { resources, problems: found } = parse(spec, rest);
  const resolved = await Promise.all(
    resources.map((resource) => resolve(resource as HttpEndpointResource, env)),
  );
  return [...found, ...resolved.flatMap((it) => it.problems)].map(formatProblem);
}

const base = "  baseUrl: https://example.com\n";

describe("an HTTPEndpoint", () => {
  it("is read whole", async () => {
    const spec = `${base}  headers:
  - name: X-One
    value: 1
  - name: X-Two
    envRef: TWO
  clientTLS:
    rootCA: {}
    renegotiation: onceasclient
`;
    const resource = parsed(spec, "auth:\n  secretStore: vault\nscopes: [a]\n");
    expect(resource).toMatchObject({
      name: "shop",
      baseUrl: "https://example.com",
      scopes: ["a"],
      secretStore: "vault",
    });
    const { endpoint } = await resolve(resource, { TWO: "two" });
    expect(endpoint).toEqual({
      name: "shop",
      baseUrl: "https://example.com",
      headers: ["X-One", "1", "X-Two", "two"],
      rootCA: undefined,
      certificate: undefined,
      privateKey: undefined,
      renegotiation: "OnceAsClient",
    });
  });

  it.each([
    [
      "  headers: []\n",
      /^f\.yaml:6:3: spec\.baseUrl is missing, write for example baseUrl: https:\/\/example\.com$/,
    ],
    [
      "  baseUrl: example.com\n",
      /^f\.yaml:6:3: spec\.baseUrl "example\.com" must start with http:\/\/ or https:\/\/$/,
    ],
    ["  baseUrl: http://a:b\n", /spec\.baseUrl "http:\/\/a:b" is no URL/],
    ["  baseUrl: http://a?b=1\n", /may not have a query or fragment/],
    ["  baseUrl: http://u:p@a\n", /may not hold a user or password, write an Authorization header/],
    [`${base}  header: []\n`, /spec\.header is not known and is ignored, did you mean "headers"\?/],
    [
      `${base}  headers:\n  - name: a b\n    value: x\n`,
      /^f\.yaml:8:5: spec\.headers\[0\]\.name "a b" is no header name/,
    ],
    [`${base}  headers:\n  - name: Host\n    value: x\n`, /"Host" is set by the sidecar itself, remove it/],
    [`${base}  headers:\n  - value: x\n`, /spec\.headers\[0\]\.name is missing/],
    [
      `${base}  headers:\n  - name: A\n    value: "x\\ny"\n`,
      /spec\.headers\[0\]: the value of A holds a line break or NUL/,
    ],
    [
      `${base}  clientTLS:\n    renegotiation: Freely\n`,
      /^f\.yaml:8:5: .*\.renegotiation "Freely" is not known.*\(known: Never, OnceAsClient, FreelyAsClient\)$/,
    ],
    [
      `${base}  clientTLS:\n    rootCA:\n      value: nonsense\n`,
      /^f\.yaml:9:7: spec\.clientTLS\.rootCA must be one or more certificates in PEM form: it has no line/,
    ],
    [
      `${base}  clientTLS:\n    certificate:\n      value: nonsense\n`,
      /spec\.clientTLS\.certificate needs spec\.clientTLS\.privateKey beside it/,
    ],
    [
      `${base}  clientTLS:\n    certificate:\n      value: nonsense\n    privateKey:\n      value: nonsense\n`,
      /spec\.clientTLS\.certificate must be a certificate that belongs to spec\.clientTLS\.privateKey in PEM form/,
    ],
    [
      `${base}  headers:\n  - name: A\n    secretKeyRef:\n      name: s\n      key: k\n`,
      /^f\.yaml:8:5: spec\.headers\[0\]\.secretKeyRef cannot be read: auth\.secretStore is not set, name/,
    ],
    [
      `${base}  clientTLS:\n    privateKey:\n      secretKeyRef:\n        name: s\n`,
      /spec\.clientTLS\.privateKey\.secretKeyRef cannot be read/,
    ],
    [
      `${base}  headers:\n  - name: A\n    envRef: APP_API_TOKEN\n`,
      /environment variable that is not allowed: APP_API_TOKEN; it is empty/,
    ],
  ])("names what is wrong in %j", async (spec, text) => {
    const found = await problems(spec, { APP_API_TOKEN: "x" });
    expect(found[0]).toMatch(text);
    expect(found).toHaveLength(1);
  });
});

describe("a text from a secret store", () => {
  const header = (name: string, key: string): string =>
    `${base}  headers:\n  - name: A\n    secretKeyRef:\n      name: ${name}\n      key: ${key}\n`;

  it("is taken from auth.secretStore and unquoted once", async () => {
    const resource = parsed(header("s", "token"), "auth:\n  secretStore: vault\n");
    expect((await resolve(resource)).endpoint?.headers).toEqual(["A", "quoted"]);
  });

  it.each([
    [header("s", "token"), "attic", /no secret store attic is loaded, add that component$/],
    [header("s", "nokey"), "vault", /secret s of vault has no key nokey$/],
    [
      header("broken", "k"),
      "vault",
      /spec\.headers\[0\]\.secretKeyRef cannot be read: no access from default$/,
    ],
  ])("that cannot be read fails the endpoint: %j in %s", async (spec, store, text) => {
    const rest = `auth:\n  secretStore: ${store}\n`;
    expect((await resolve(parsed(spec, rest))).endpoint).toBeUndefined();
    const found = await problems(spec, {}, rest);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(text);
  });
});
