import { describe, expect, it } from "vitest";
import { formatProblem } from "../problem.ts";
import { SettingError } from "../setting-error.ts";
import { DEFAULT_CONFIGURATION, type ConfigurationResource, enabledFeatures } from "./configuration.ts";
import { parseConfiguration } from "./parse-configuration.ts";

/** Files c0.yaml, c1.yaml, ... with these specs, each indented by the caller. */
function parse(...specs: readonly string[]): ConfigurationResource {
  return parseConfiguration(
    specs.map((spec, index) => ({
      file: `c${index}.yaml`,
      text: `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c${index}}\nspec:\n${spec}`,
    })),
  );
}

describe("parseConfiguration", () => {
  it("gives the defaults for empty files", () => {
    expect(parseConfiguration([{ file: "c.yaml", text: "# nothing\n" }])).toEqual(DEFAULT_CONFIGURATION);
    expect(parse("")).toEqual({ ...DEFAULT_CONFIGURATION, name: "c0" });
  });

  it("reads every part", () => {
    const spec = `
  tracing:
    samplingRate: 1
    stdout: true
    zipkin: {endpointAddress: "http://z:9411/api/v2/spans"}
    otel: {protocol: grpc, endpointAddress: "o:4317", isSecure: false, headers: [a=b], timeout: 30s}
  metric:
    enabled: false
    http: {increasedCardinality: false, pathMatching: ["/orders/{id}"], excludeVerbs: true}
    latencyDistributionBuckets: [1, 2.5]
    rules: [{name: m, labels: [{name: l, regex: {}}]}]
  httpPipeline: {handlers: [{name: limit, type: middleware.http.ratelimit}]}
  appHttpPipeline: {handlers: [{name: up, type: middleware.http.uppercase, version: v2}]}
  api:
    allowed: [{name: state, version: v1, protocol: http}]
    denied: [{name: invoke, protocol: grpc}]
  accessControl: {defaultAction: deny}
  secrets: {scopes: [{storeName: vault, defaultAccess: Deny, allowedSecrets: [a]}]}
  components: {deny: [state.redis]}
  features: [{name: HotReload, enabled: false}, {name: Mine, enabled: true}]
  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}
  wasm: {strictSandbox: true}
  nameResolution: {component: mdns}
`;
    const configuration = parse(spec);
    expect(configuration).toEqual({
      name: "c0",
      tracing: {
        samplingRate: "1",
        stdout: true,
        zipkinEndpoint: "http://z:9411/api/v2/spans",
        otel: { protocol: "grpc", endpoint: "o:4317", isSecure: false, headers: ["a=b"], timeoutMs: 30_000 },
      },
      metrics: {
        enabled: false,
        recordErrorCodes: false,
        http: { increasedCardinality: false, pathMatching: ["/orders/{id}"], excludeVerbs: true },
        latencyBuckets: [1, 2.5],
        rules: [{ name: "m", labels: [{ name: "l", regex: [] }] }],
      },
      api: {
        allowed: [{ name: "state", version: "v1", protocol: "http" }],
        denied: [{ name: "invoke", version: "", protocol: "grpc" }],
      },
      apiLogging: { enabled: true, obfuscateUrls: true, omitHealthChecks: true },
      features: [
        { name: "HotReload", enabled: false },
        { name: "Mine", enabled: true },
      ],
      httpPipeline: [{ name: "limit", type: "middleware.http.ratelimit", version: "v1" }],
      appHttpPipeline: [{ name: "up", type: "middleware.http.uppercase", version: "v2" }],
      deniedComponents: ["state.redis"],
      secretScopes: [{ storeName: "vault", defaultAccess: "deny", allowedSecrets: ["a"], deniedSecrets: [] }],
      wasmStrictSandbox: true,
      accessControl: { defaultAction: "deny", policies: [] },
      nameResolution: { component: "mdns" },
      workflow: undefined,
      mtls: undefined,
      problems: [],
    });
    expect(enabledFeatures(configuration)).toEqual(["WorkflowsRemoteActivityReminder", "Mine"]);
    expect(Object.isFrozen(configuration.tracing.otel)).toBe(true);
  });

  it("merges files: mappings by field, lists and scalars as a whole, null not at all", () => {
    const configuration = parse(
      "  tracing: {samplingRate: 1, otel: {endpointAddress: a, protocol: http}}\n  features: [{name: " +
        "A, enabled: true}]\n",
      "  tracing: {samplingRate: 0.5, stdout: true, otel: {endpointAddress: b, protocol: }}\n  " +
        "features: [{name: B, enabled: true}]\n",
      "  metric: {enabled: false}\n  tracing:\n",
    );
    expect(configuration.name).toBe("c2");
    expect(configuration.tracing).toMatchObject({
      samplingRate: "0.5",
      stdout: true,
      otel: { endpoint: "b", protocol: "http" },
    });
    expect(configuration.features).toEqual([{ name: "B", enabled: true }]);
    expect(configuration.metrics.enabled).toBe(false);
  });

  it("lets metrics override metric field by field", () => {
    const { metrics } = parse(
      "  metric: {enabled: false, recordErrorCodes: true}\n  metrics: {enabled: true}\n",
    );
    expect(metrics).toMatchObject({ enabled: true, recordErrorCodes: true });
  });

  it.each([
    ["  tracing: {stdout: 1}\n", "c0.yaml:5:21: spec.tracing.stdout must be true or false, not 1"],
    [
      "  tracing:\n    otel: {endpointAddress: o, protocol: htpp}\n",
      "c0.yaml:6:32: invalid protocol htpp provided for Otel endpoint, write http or grpc",
    ],
    [
      "  tracing: {otel: {timeout: 30}}\n",
      'c0.yaml:5:20: spec.tracing.otel.timeout: time: missing unit in duration "30", write for example 30s',
    ],
    [
      "  secrets: {scopes: [{storeName: a}, {storeName: a}]}\n",
      "c0.yaml:5:39: a storeName is repeated in secrets configuration",
    ],
    [
      "  secrets: {scopes: [{storeName: a, defaultAccess: no}]}\n",
      'c0.yaml:5:37: defaultAccess "false" can be either allow or deny',
    ],
    [
      "  metric: {latencyDistributionBuckets: [1, x]}\n",
      "c0.yaml:5:12: spec.metric.latencyDistributionBuckets must be a list of numbers (milliseconds)",
    ],
    [
      "  features: [{enabled: true}]\n",
      "c0.yaml:5:14: spec.features[0].name is missing, write for example name: HotReload",
    ],
    [
      "  api: {denied: invoke}\n",
      'c0.yaml:5:17: spec.api.denied must be a list of mappings, each starting with "- ", not the text "invoke"',
    ],
    [
      "  accessControl: {policies: [{appId: a, namespace: default}]}\n",
      "c0.yaml:5:30: spec.accessControl.policies[0].trustDomain is missing, write for example trustDomain: public",
    ],
    [
      "  accessControl: {policies: [{appId: a, trustDomain: public}]}\n",
      "c0.yaml:5:30: spec.accessControl.policies[0].namespace is missing, write for example namespace: default",
    ],
    [
      "  accessControl: {policies: [{namespace: default, trustDomain: public}]}\n",
      "c0.yaml:5:30: spec.accessControl.policies[0].appId is missing, write for example appId: orders",
    ],
    [
      "  tracing: [\n",
      "c0.yaml:6:1: not valid YAML: Flow sequence in block collection must be sufficiently indented " +
        "and end with a ]; check the indentation and the closing brackets",
    ],
  ])("refuses %j", (spec, message) => {
    expect(() => parse(spec)).toThrow(new SettingError(`error loading configuration: ${message}`));
  });

  it.each([
    ["{}", "allow"],
    ['{defaultAction: "", policies: []}', "allow"],
    ['{defaultAction: "", policies: [{appId: a, namespace: b, trustDomain: c}]}', "deny"],
    ["{policies: [{appId: a, namespace: b, trustDomain: c}]}", "allow"],
    ["{defaultAction: Deny}", "Deny"],
  ])("takes the default action of accessControl %s for %s", (section, action) => {
    expect(parse(`  accessControl: ${section}\n`).accessControl?.defaultAction).toBe(action);
  });

  it("reads access policies, and warns of what has no effect in them", () => {
    const { accessControl, problems } = parse(`
  accessControl:
    defaultAction: block
    policies:
      - appId: a
        namespace: b
        trustDomain: public
        defaultAction: allow
        operations:
          - {name: /One, httpVerb: [GET, "*"], action: deny}
          - {name: one, action: allow}
`);
    const operations = [
      { name: "/One", verbs: ["GET", "*"], action: "deny" },
      { name: "one", verbs: [], action: "allow" },
    ];
    const policy = { appId: "a", namespace: "b", trustDomain: "public", defaultAction: "allow", operations };
    expect(accessControl).toEqual({ defaultAction: "block", policies: [policy] });
    const texts = problems.map(formatProblem);
    expect(texts).toContainEqual(
      'c0.yaml:7:5: spec.accessControl.defaultAction: "block" is neither allow nor deny and denies',
    );
    expect(texts.join("\n")).toMatch(/c0.yaml:15:.*operations\[1\].name: "one" is declared above already/);
  });

  it("names the file in which a fault stands", () => {
    expect(() => parse("  tracing: {stdout: true}\n", "  tracing: {stdout: maybe}\n")).toThrow(
      'error loading configuration: c1.yaml:5:21: spec.tracing.stdout must be true or false, not the text "maybe"',
    );
  });

  it("warns of unknown keys, another kind and further documents", () => {
    const text = "kind: Component\nspec:\n  tracng: {}\n---\nspec: {}\n";
    expect(parseConfiguration([{ file: "c.yaml", text }]).problems.map(formatProblem)).toEqual([
      "c.yaml:5:1: only the first document of a configuration file is read, use a file for each",
      'c.yaml:1:1: kind is "Component", a --config file holds a Configuration',
      'c.yaml:3:3: spec.tracng is not known and is ignored, did you mean "tracing"?',
    ]);
  });
});
