import { describe, expect, it } from "vitest";
import {
  componentLabel,
  type ComponentResource,
  isDenied,
  isEnvAllowed,
  MetadataError,
  type MetadataItem,
  type MetadataSurroundings,
  resolveMetadata,
} from "./component.ts";

const origin = { file: "f", line: 1, column: 1 };

function item(name: string, from: Partial<MetadataItem>): MetadataItem {
  return { name, value: undefined, secretKeyRef: undefined, envRef: undefined, origin, ...from };
}

function component(
  metadata: readonly MetadataItem[],
  from: Partial<ComponentResource> = {},
): ComponentResource {
  return {
    kind: "Component",
    name: "store",
    namespace: undefined,
    type: "state.redis",
    version: "v1",
    metadata,
    initTimeoutMs: 5_000,
    ignoreErrors: false,
    scopes: [],
    secretStore: undefined,
    origin,
    typeOrigin: origin,
    ...from,
  };
}

function surroundings(from: Partial<MetadataSurroundings> = {}): MetadataSurroundings {
  let uuids = 0;
  return {
    appId: "shop",
    namespace: "prod",
    env: {},
    uuid: () => `uuid-${++uuids}`,
    defaultSecretStore: undefined,
    readSecret: () => Promise.resolve(undefined),
    ...from,
  };
}

async function resolved(
  metadata: readonly MetadataItem[],
  from: Partial<MetadataSurroundings> = {},
): Promise<unknown> {
  const { texts, warnings } = await resolveMetadata(component(metadata), surroundings(from));
  return { texts: Object.fromEntries(texts), warnings: warnings.map(({ message }) => message) };
}

describe("resolveMetadata", () => {
  it("fills in templates", async () => {
    const metadata = [
      item("a", { value: "{uuid}/{uuid}" }),
      item("b", { value: "{appID}.{namespace}.{podName}" }),
      item("c", { value: "{other} $& {appid}" }),
    ];
    expect(await resolved(metadata, { env: { POD_NAME: "pod-$&" } })).toEqual({
      texts: { a: "uuid-1/uuid-2", b: "shop.prod.shop.pod-$&", c: "{other} $& {appid}" },
      warnings: [],
    });
  });

  it("fails when the pod name is asked for and unknown", async () => {
    await expect(resolved([item("id", { value: "{podName}" })])).rejects.toThrow(
      new MetadataError(
        "id",
        "failed to parse metadata: property id refers to {podName} but podName is not set",
      ),
    );
  });

  it("takes environment variables that are allowed, when there is no value", async () => {
    const env = { TOKEN: "t", QUOTED: '"a\\n"', DAPR_SECRET: "no", APP_API_TOKEN: "no" };
    const metadata = [
      item("a", { envRef: "TOKEN" }),
      item("b", { envRef: "TOKEN", value: "given" }),
      item("c", { envRef: "QUOTED" }),
      item("d", { envRef: "DAPR_SECRET" }),
      item("e", { envRef: "app_api_token" }),
      item("f", { envRef: "UNSET" }),
    ];
    expect(await resolved(metadata, { env })).toEqual({
      texts: { a: "t", b: "given", c: "a\n", d: "", e: "", f: "" },
      warnings: [
        "store (state.redis/v1) refers to an environment variable that is not allowed: DAPR_SECRET",
        "store (state.redis/v1) refers to an environment variable that is not allowed: app_api_token",
      ],
    });
  });

  it("asks the secret store by name, key and namespace", async () => {
    const asked: unknown[] = [];
    const metadata = [
      item("a", { secretKeyRef: { name: "redis", key: "pw" } }),
      item("b", { secretKeyRef: { name: "redis", key: "" } }),
      item("c", { secretKeyRef: { name: "redis", key: "absent" }, value: "kept" }),
      item("d", { secretKeyRef: { name: "redis", key: "toString" } }),
    ];
    const readSecret: MetadataSurroundings["readSecret"] = (...call) => {
      asked.push(call);
      return Promise.resolve({ pw: '"{appID}"', redis: "same name" });
    };
    const { texts } = await resolveMetadata(
      component(metadata, { secretStore: "vault", namespace: "test" }),
      surroundings({ readSecret }),
    );
    expect(Object.fromEntries(texts)).toEqual({ a: "shop", b: "same name", c: "kept", d: "" });
    expect(asked[0]).toEqual(["vault", "redis", { namespace: "test" }]);
  });

  it("waits for a store that is not loaded", async () => {
    const metadata = [item("a", { secretKeyRef: { name: "s", key: "" } })];
    const outcome = await resolveMetadata(component(metadata, { secretStore: "vault" }), surroundings());
    expect(outcome.waitingFor).toBe("vault");
  });

  it("goes on without a store or when a lookup fails", async () => {
    const metadata = [
      item("a", { secretKeyRef: { name: "s", key: "" } }),
      item("b", { secretKeyRef: { name: "t", key: "" } }),
      item("c", { value: "x" }),
    ];
    expect(await resolved(metadata)).toEqual({
      texts: { a: "", b: "", c: "x" },
      warnings: ["store (state.redis/v1): a refers to a secret but auth.secretStore is not set"],
    });
    const readSecret = (): Promise<never> => Promise.reject(new Error("sealed"));
    expect(await resolved(metadata, { defaultSecretStore: "kubernetes", readSecret })).toEqual({
      texts: { a: "", b: "", c: "x" },
      warnings: [
        "store (state.redis/v1): getting secret s from kubernetes failed: sealed",
        "store (state.redis/v1): getting secret t from kubernetes failed: sealed",
      ],
    });
  });
});

describe("isEnvAllowed", () => {
  it.each([
    ["TOKEN", undefined, true],
    ["dapr_x", undefined, false],
    ["APP_API_TOKEN", undefined, false],
    ["A B", undefined, false],
    ["TOKEN", "OTHER TOKEN", true],
    ["TOKEN", "OTHER TOKENS", false],
    ["TOKEN", "", true],
  ])("says whether %s may be read with DAPR_ENV_KEYS %s", (name, keys, allowed) => {
    expect(isEnvAllowed(name, { DAPR_ENV_KEYS: keys })).toBe(allowed);
  });
});

describe("isDenied", () => {
  it.each([
    [[], "v1", false],
    [["state.redis"], "v1", true],
    [["state.redis/v1"], "v1", true],
    [["state.redis/v2"], "v1", false],
    [["pubsub.nats"], "v1", false],
    [["pubsub.nats"], "", true],
  ])("by %j with version %j", (deny, version, denied) => {
    expect(isDenied(component([], { version }), deny)).toBe(denied);
  });
});

describe("componentLabel", () => {
  it("leaves an empty version out", () => {
    expect(componentLabel(component([]))).toBe("store (state.redis/v1)");
    expect(componentLabel(component([], { version: "" }))).toBe("store (state.redis)");
  });
});
