import { describe, expect, it } from "vitest";
import { parseResources } from "./parse-resources.ts";
import { formatProblem } from "./problem.ts";

/** All problems, one line each, after their severity. */
function problems(text: string): string[] {
  return parseResources(text, "f.yaml").problems.map(
    (problem) => `${problem.severity} ${formatProblem(problem)}`,
  );
}

function component(spec: string, rest = ""): string {
  return `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: store\nspec:\n${spec}${rest}`;
}

function subscription(version: string, spec: string): string {
  return `apiVersion: dapr.io/${version}\nkind: Subscription\nmetadata:\n  name: sub\nspec:\n${spec}`;
}

describe("a component", () => {
  it("is read with its places", () => {
    const text = `# the store
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
  namespace: prod
spec:
  type: state.redis
  version: v1
  initTimeout: 1m30s
  ignoreErrors: yes
  metadata:
  - name: redisHost
    value: localhost:6379
  - name: enableTLS
    value: no
  - name: ttl
    value: 010
  - name: ratio
    value: 1.0
  - name: list
    value: [a, 1.0, {b: yes}]
  - name: empty
    value:
  - name: password
    secretKeyRef:
      name: redis
      key: pw
  - name: token
    envRef: REDIS_TOKEN
auth:
  secretStore: vault
scopes:
- shop
- 5
`;
    const { resources, problems: found } = parseResources(text, "dir/s.yaml");
    const item = { secretKeyRef: undefined, envRef: undefined };
    const origin = (line: number): object => ({ file: "dir/s.yaml", line, column: 5 });
    expect(found).toEqual([]);
    expect(resources).toEqual([
      {
        kind: "Component",
        name: "statestore",
        namespace: "prod",
        type: "state.redis",
        version: "v1",
        initTimeoutMs: 90_000,
        ignoreErrors: true,
        secretStore: "vault",
        scopes: ["shop", "5"],
        origin: { file: "dir/s.yaml", line: 2, column: 1 },
        typeOrigin: { file: "dir/s.yaml", line: 8, column: 3 },
        metadata: [
          { ...item, name: "redisHost", value: "localhost:6379", origin: origin(13) },
          { ...item, name: "enableTLS", value: "false", origin: origin(15) },
          { ...item, name: "ttl", value: "8", origin: origin(17) },
          { ...item, name: "ratio", value: "1", origin: origin(19) },
          { ...item, name: "list", value: '["a",1,{"b":true}]', origin: origin(21) },
          { ...item, name: "empty", value: undefined, origin: origin(23) },
          {
            ...item,
            name: "password",
            value: undefined,
            secretKeyRef: { name: "redis", key: "pw" },
            origin: origin(25),
          },
          { ...item, name: "token", value: undefined, envRef: "REDIS_TOKEN", origin: origin(29) },
        ],
      },
    ]);
    expect(Object.isFrozen(resources[0])).toBe(true);
  });

  it("has defaults", () => {
    expect(parseResources(component("  type: state.nats\n"), "f").resources).toMatchObject([
      {
        version: "",
        metadata: [],
        initTimeoutMs: 5_000,
        ignoreErrors: false,
        scopes: [],
        namespace: undefined,
      },
    ]);
  });

  it("is as if they were not there where a Go program wrote its empty members", () => {
    const empty = `secretKeyRef: {key: "", name: ""}`;
    const text = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store, namespace: "", creationTimestamp: null}
auth: {secretStore: ""}
scopes: null
spec:
  ignoreErrors: false
  initTimeout: ""
  metadata: [{name: a, value: x, ${empty}}, {name: b, ${empty}, envRef: ""}, {name: c, secretKeyRef: {}}]
  type: state.x
  version: ""
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: out, creationTimestamp: null}
auth: {secretStore: ""}
spec:
  baseUrl: http://x
  clientTLS: {rootCA: {value: null, ${empty}}, certificate: null}
  headers: [{name: A, value: x, ${empty}}]
`;
    expect(parseResources(text, "f")).toMatchObject({
      resources: [
        {
          namespace: undefined,
          secretStore: undefined,
          scopes: [],
          metadata: [{ secretKeyRef: undefined }, { secretKeyRef: undefined }, { secretKeyRef: undefined }],
        },
        { headers: [{ value: "x", secretKeyRef: undefined }] },
      ],
      problems: [],
    });
  });

  it("takes plain words as text where text is wanted, and keys in any letter case", () => {
    const text =
      "APIVERSION: dapr.io/v1alpha1\nKind: Component\nmetadata: {name: on}\nspec: {type: state.x, Version: 1.0}\n";
    expect(parseResources(text, "f")).toMatchObject({
      resources: [{ name: "true", version: "1" }],
      problems: [],
    });
  });

  it.each([
    ["  version: v1\n", "error f.yaml:6:3: spec.type is missing, write for example type: state.redis"],
    ["  type:\n", "error f.yaml:6:3: spec.type is empty, write for example type: state.redis"],
    ["  type: [state.redis]\n", "error f.yaml:6:9: spec.type must be text, not a list"],
    [
      "  type: state.redis\n  metadata:\n    redisHost: x\n",
      'error f.yaml:8:5: spec.metadata must be a list of mappings, each starting with "- ", not a mapping',
    ],
    [
      "  type: state.redis\n  metadata:\n  - redisHost\n",
      'error f.yaml:8:5: spec.metadata[0] must be a mapping, not the text "redisHost"',
    ],
    [
      '  type: state.redis\n  ignoreErrors: "true"\n',
      'error f.yaml:7:17: spec.ignoreErrors must be true or false, not the text "true" (remove the quotes)',
    ],
    [
      "  type: state.redis\n  metadata:\n  - name: p\n    secretKeyRef: redis\n",
      "error f.yaml:9:19: spec.metadata[0].secretKeyRef must be a mapping, its fields on indented " +
        'lines of their own, not the text "redis"',
    ],
    [
      "  type: state.redis\n  metadata:\n  - name: p\n    secretKeyRef: {key: pw}\n",
      "error f.yaml:9:19: spec.metadata[0].secretKeyRef.name is missing, write for example name: my-secret",
    ],
    [
      "  type: state.redis\nscopes: shop\n",
      'error f.yaml:7:9: scopes must be a list, one line for each item and starting with "- ", not the text "shop"',
    ],
  ])("is skipped when its spec is %j", (spec, problem) => {
    expect(problems(component(spec))).toEqual([problem]);
    expect(parseResources(component(spec), "f.yaml").resources).toEqual([]);
  });

  it.each([
    [
      "  type: state.redis\n  metdata: []\n",
      'warning f.yaml:7:3: spec.metdata is not known and is ignored, did you mean "metadata"?',
    ],
    [
      "  type: state.redis\n  metadata:\n  - name: a\n    vaule: 1\n",
      'warning f.yaml:9:5: spec.metadata[0].vaule is not known and is ignored, did you mean "value"?',
    ],
    [
      "  type: state.redis\n  metadata:\n  - value: 1\n",
      "warning f.yaml:8:5: spec.metadata[0] has no name and is ignored, write name: and value: on two lines",
    ],
    [
      "  type: state.redis\n  metadata:\n  - {name: a, value: 1}\n  - {name: a, value: 2}\n",
      'warning f.yaml:9:5: spec.metadata[1]: "a" is given twice, the last one is used',
    ],
    [
      "  type: state.redis\n  initTimeout: 30\n",
      'warning f.yaml:7:3: spec.initTimeout "30" is no duration such as 30s or 1m, 5s is used',
    ],
    [
      "  type: state.redis\n  type: state.nats\n",
      'warning f.yaml:7:3: "type" is given twice, the last one is used',
    ],
    [
      "  type: state.redis\nscope:\n- shop\n",
      'warning f.yaml:7:1: scope is not known and is ignored, did you mean "scopes"?',
    ],
    [
      "  type: state.redis\nauth:\n  store: x\n",
      "warning f.yaml:8:3: auth.store is not known and is ignored, known are secretStore",
    ],
    [
      '  type: state.redis\nscopes: ["shop "]\n',
      "warning f.yaml:7:1: scopes of this Component name an app with blanks around it, or none",
    ],
  ])("is used with a warning when its spec is %j", (spec, problem) => {
    expect(problems(component(spec))).toEqual([problem]);
    expect(parseResources(component(spec), "f.yaml").resources).toHaveLength(1);
  });

  it.each([
    ["a/b", '"a/b" may not be or contain "/", choose another name'],
    ["50%", '"50%" may not be or contain "%", choose another name'],
    ["..", '".." may not be or contain "..", choose another name'],
    ['""', "is missing, every resource needs one"],
  ])("is skipped when its name is %s", (name, fault) => {
    const text = component("  type: state.redis\n").replace("name: store", `name: ${name}`);
    expect(problems(text)).toEqual([`error f.yaml:4:3: metadata.name ${fault}`]);
  });

  it("is skipped without metadata or spec", () => {
    expect(problems("apiVersion: dapr.io/v1alpha1\nkind: Component\nspec: {type: a.b}\n")).toEqual([
      "error f.yaml:1:1: metadata.name is missing, every resource needs one",
    ]);
    expect(problems("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\n")).toEqual([
      "error f.yaml:1:1: spec is missing, a component needs at least spec.type, such as type: state.redis",
    ]);
  });
});

describe("a subscription", () => {
  const expected = {
    kind: "Subscription",
    name: "sub",
    namespace: undefined,
    pubsubname: "pubsub",
    topic: "orders",
    deadLetterTopic: "",
    metadata: {},
    bulkSubscribe: { enabled: false, maxMessagesCount: 0, maxAwaitDurationMs: 0 },
    scopes: [],
    origin: { file: "f", line: 1, column: 1 },
  };

  it("of the first version has one route", () => {
    const spec = "  pubsubname: pubsub\n  topic: orders\n  route: /orders\n";
    expect(parseResources(subscription("v1alpha1", spec), "f").resources).toEqual([
      { ...expected, rules: [{ match: "", path: "/orders" }] },
    ]);
  });

  it("of the second version has rules, the default last", () => {
    const spec = `  pubsubname: pubsub
  topic: orders
  routes:
    default: /other
    rules:
    - match: event.type == "a"
      path: /a
    - path: /b
  deadLetterTopic: poison
  metadata: {rawPayload: true, count: 5}
  bulkSubscribe: {enabled: true, maxMessagesCount: 10, maxAwaitDurationMs: 40}
`;
    expect(parseResources(subscription("v2alpha1", spec), "f").resources).toEqual([
      {
        ...expected,
        rules: [
          { match: 'event.type == "a"', path: "/a" },
          { match: "", path: "/b" },
          { match: "", path: "/other" },
        ],
        deadLetterTopic: "poison",
        metadata: { rawPayload: "true", count: "5" },
        bulkSubscribe: { enabled: true, maxMessagesCount: 10, maxAwaitDurationMs: 40 },
      },
    ]);
  });

  const base = "  pubsubname: pubsub\n  topic: orders\n";
  it.each([
    [
      "v1alpha1",
      `${base}  routes: {default: /a}\n`,
      [
        "warning f.yaml:8:3: spec.routes is ignored in dapr.io/v1alpha1, use apiVersion: dapr.io/v2alpha1, or route",
        "warning f.yaml:6:3: spec.route is missing: every event of the topic will be dropped",
      ],
    ],
    [
      "v2alpha1",
      `${base}  route: /a\n`,
      [
        "warning f.yaml:8:3: spec.route is ignored in dapr.io/v2alpha1, use apiVersion: dapr.io/v1alpha1, or routes",
        "warning f.yaml:6:3: spec.routes is missing: every event of the topic will be dropped",
      ],
    ],
    [
      "v1alpha1",
      "  topic: orders\n  route: /a\n",
      ["error f.yaml:6:3: spec.pubsubname is missing, write for example pubsubname: pubsub"],
    ],
    [
      "v1alpha1",
      "  pubsubName: pubsub\n  topik: orders\n  route: /a\n",
      [
        'warning f.yaml:7:3: spec.topik is not known and is ignored, did you mean "topic"?',
        "error f.yaml:6:3: spec.topic is missing, write for example topic: orders",
      ],
    ],
    [
      "v2alpha1",
      `${base}  routes: /a\n`,
      [
        "error f.yaml:8:11: spec.routes must be a mapping, its fields on indented lines of their " +
          'own, not the text "/a"',
      ],
    ],
    [
      "v2alpha1",
      `${base}  routes: {default: /a}\n  bulkSubscribe: {maxMessagesCount: "5"}\n`,
      [
        "error f.yaml:9:37: spec.bulkSubscribe.maxMessagesCount must be a whole number, not the text " +
          '"5" (remove the quotes)',
      ],
    ],
    [
      "v1alpha1",
      `${base}  route: /a\n  metadata: [a]\n`,
      [
        "error f.yaml:9:13: spec.metadata must be a mapping with a line `name: value` for each entry, not a list",
      ],
    ],
  ])("of %s with %j says what is wrong", (version, spec, lines) => {
    expect(problems(subscription(version, spec))).toEqual(lines);
  });
});

describe("a file", () => {
  it("keeps the good documents beside the bad ones", () => {
    const good = component("  type: state.redis\n");
    const text = `${good}---\nfoo: [\n---\n${good.replace("store", "second")}---\n`;
    const parsed = parseResources(text, "f.yaml");
    expect(parsed.resources.map(({ name, origin }) => [name, origin.line])).toEqual([
      ["store", 1],
      ["second", 10],
    ]);
    expect(parsed.problems).toHaveLength(1);
    expect(parsed.problems[0]).toMatchObject({ severity: "error", line: 8 });
  });

  it.each([
    [
      "hello",
      [
        'error f.yaml:1:1: a resource must be a mapping, not the text "hello"; write apiVersion:, ' +
          'kind:, metadata: and spec: with a blank after each ":"',
      ],
    ],
    [
      "- a\n- b",
      [
        "error f.yaml:1:1: a resource must be a mapping, not a list; write apiVersion:, kind:, " +
          'metadata: and spec: with a blank after each ":"',
      ],
    ],
    ["kind: Component\n", ["warning f.yaml:1:1: apiVersion is missing, write apiVersion: dapr.io/v1alpha1"]],
    [
      "apiVersion: dapr.io/v1\nkind: Component\n",
      [
        'warning f.yaml:1:1: apiVersion "dapr.io/v1" is not known for kind Component, write ' +
          "apiVersion: dapr.io/v1alpha1",
      ],
    ],
    [
      "apiVersion: dapr.io/v1\nkind: Subscription\n",
      [
        'warning f.yaml:1:1: apiVersion "dapr.io/v1" is not known for kind Subscription, write ' +
          "apiVersion: dapr.io/v1alpha1 or dapr.io/v2alpha1",
      ],
    ],
    [
      "apiVersion: dapr.io/v1alpha1\nkind: Componet\n",
      [
        'warning f.yaml:2:1: kind "Componet" is not known, did you mean "Component"? (known: ' +
          "Component, Subscription, Configuration, Resiliency, HTTPEndpoint, MCPServer, " +
          "WorkflowAccessPolicy)",
      ],
    ],
    ["apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n", []],
    ["apiVersion: other.io/v1\nkind: Component\n", []],
    ["foo: bar\n", []],
    ["kind: {a: 1}\n", ["error f.yaml:1:7: kind must be text, not a mapping"]],
    ["", []],
    ["# only a comment\n---\n", []],
  ])("of %j gives %j", (text, lines) => {
    expect(problems(text)).toEqual(lines);
    expect(parseResources(text, "f.yaml").resources).toEqual([]);
  });

  it("keeps the kinds that are not used yet as data", () => {
    const text =
      "apiVersion: dapr.io/v1alpha1\nkind: MCPServer\nmetadata: {name: r}\nscopes: [a]\n" +
      "spec: {endpoint: {url: x}}\n";
    expect(parseResources(text, "f").resources).toEqual([
      {
        kind: "MCPServer",
        apiVersion: "dapr.io/v1alpha1",
        name: "r",
        namespace: undefined,
        scopes: ["a"],
        spec: { endpoint: { url: "x" } },
        origin: { file: "f", line: 1, column: 1 },
      },
    ]);
  });

  it("may be longer than 64 KiB", () => {
    const value = "x".repeat(100_000);
    const text = component(`  type: state.redis\n  metadata:\n  - name: big\n    value: ${value}\n`);
    expect(parseResources(text, "f").resources).toMatchObject([{ metadata: [{ value }] }]);
  });
});
