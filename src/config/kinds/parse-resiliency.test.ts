import { describe, expect, it } from "vitest";
import { parseResources } from "../parse-resources.ts";
import { formatProblem } from "../problem.ts";
import type { ResiliencyResource } from "./resiliency.ts";

function parse(spec: string): { resource: ResiliencyResource; faults: string[]; problems: string[] } {
  const text = `apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nscopes: [a]\nspec:\n${spec}`;
  const { resources, problems } = parseResources(text, "f.yaml");
  const resource = resources[0] as ResiliencyResource;
  return { resource, faults: resource.faults.map(formatProblem), problems: problems.map(formatProblem) };
}

const whole = `  policies:
    timeouts:
      short: 500ms
      plain: 250
      none: 0
    retries:
      simple: {policy: constant, duration: 2s, maxRetries: 3}
      growing:
        policy: Exponential
        maxInterval: 15s
        maxRetries: -1
        matching:
          httpStatusCodes: 429,500-599
          gRPCStatusCodes: 2, 13-14
      bare:
    circuitBreakers:
      full: {maxRequests: 2, interval: 8s, timeout: 45s, trip: consecutiveFailures > 8}
      bare: {}
  targets:
    apps:
      shop: {timeout: short, retry: simple, circuitBreaker: full, circuitBreakerCacheSize: 7}
      empty:
    actors:
      Cart: {retry: growing, circuitBreakerScope: Both}
    components:
      store: {outbound: {timeout: plain}}
      bus: {inbound: {retry: simple}, outbound: {circuitBreaker: bare}}
`;

describe("a Resiliency", () => {
  it("is read whole, with the defaults of what is not written", () => {
    const { resource, faults, problems } = parse(whole);
    expect([...faults, ...problems]).toEqual([]);
    const codes = { httpCodes: undefined, grpcCodes: undefined };
    expect(resource).toMatchObject({
      kind: "Resiliency",
      name: "r",
      scopes: ["a"],
      timeouts: [
        { name: "short", timeoutMs: 500 },
        { name: "plain", timeoutMs: 250 },
        { name: "none", timeoutMs: 0 },
      ],
      retries: [
        { name: "simple", policy: "constant", waitMs: 2_000, maxWaitMs: 60_000, maxRetries: 3, ...codes },
        {
          name: "growing",
          policy: "exponential",
          waitMs: 5_000,
          maxWaitMs: 15_000,
          maxRetries: -1,
          httpCodes: [
            { first: 429, last: 429 },
            { first: 500, last: 599 },
          ],
          grpcCodes: [
            { first: 2, last: 2 },
            { first: 13, last: 14 },
          ],
        },
        { name: "bare", policy: "constant", waitMs: 5_000, maxWaitMs: 60_000, maxRetries: -1, ...codes },
      ],
      circuitBreakers: [
        { name: "full", maxRequests: 2, intervalMs: 8_000, openMs: 45_000, trip: "consecutiveFailures > 8" },
        { name: "bare", maxRequests: 1, intervalMs: 0, openMs: 60_000, trip: "" },
      ],
      apps: [
        { id: "shop", timeout: "short", retry: "simple", circuitBreaker: "full", breakerCount: 7 },
        { id: "empty", timeout: "", retry: "", circuitBreaker: "", breakerCount: 100 },
      ],
      actors: [{ type: "Cart", retry: "growing", breakerScope: "both", breakerCount: 5_000 }],
      components: [
        { name: "store", inbound: undefined, outbound: { timeout: "plain" } },
        { name: "bus", inbound: { retry: "simple" }, outbound: { circuitBreaker: "bare" } },
      ],
    });
    expect(Object.isFrozen(resource.retries[1])).toBe(true);
  });

  it("may be empty", () => {
    expect(parse("  {}\n")).toMatchObject({ faults: [], problems: [], resource: { apps: [], retries: [] } });
  });

  it.each([
    ["  policies: {timeouts: {t: soon}}", 'spec.policies.timeouts.t: time: invalid duration "soon"'],
    ["  policies: {timeouts: {t: 5 s}}", 'unknown unit " s"'],
    ["  policies: {timeouts: {t: -1s}}", "spec.policies.timeouts.t -1s may not be negative"],
    ["  policies: {timeouts: [a]}", "spec.policies.timeouts must be a mapping"],
    ["  policies: {retries: {r: {policy: linear}}}", 'spec.policies.retries.r.policy "linear" is not known'],
    ["  policies: {retries: {r: {duration: x}}}", "spec.policies.retries.r.duration: time: invalid duration"],
    ["  policies: {retries: {r: {maxRetries: many}}}", "maxRetries must be a whole number"],
    [
      "  policies: {retries: {r: {matching: {httpStatusCodes: 4xx}}}}",
      'httpStatusCodes: "4xx" is no code and no range of codes, write codes from 100 to 599',
    ],
    ["  policies: {retries: {r: {matching: {httpStatusCodes: 600}}}}", '"600" is no code'],
    ["  policies: {retries: {r: {matching: {httpStatusCodes: 500-400}}}}", '"500-400" is no code'],
    ["  policies: {retries: {r: {matching: {gRPCStatusCodes: '1,17'}}}}", '"17" is no code'],
    ["  policies: {circuitBreakers: {c: {timeout: forever}}}", "circuitBreakers.c.timeout: time: invalid"],
    ["  policies: {circuitBreakers: {c: {maxRequests: -1}}}", "maxRequests is -1, it may not be negative"],
    ["  targets: {actors: {A: {circuitBreakerScope: all}}}", 'circuitBreakerScope "all" is not known'],
    ["  targets: {apps: {a: general}}", "spec.targets.apps.a must be a mapping"],
  ])("keeps the fault of %s and is still there", (spec, fault) => {
    const { faults, problems, resource } = parse(`${spec}\n`);
    expect(faults).toEqual([expect.stringContaining(fault)]);
    expect(faults[0]).toMatch(/^f\.yaml:6:\d+: /);
    expect(problems).toEqual([]);
    expect(resource.name).toBe("r");
  });

  it.each([
    ["  polices: {}", 'spec.polices is not known and is ignored, did you mean "policies"?'],
    ["  policies: {retries: {r: {maxRetrys: 3}}}", 'did you mean "maxRetries"?'],
    ["  targets: {components: {c: {timeout: t}}}", "spec.targets.components.c.timeout is not known"],
  ])("warns of what it does not know: %s", (spec, problem) => {
    const { faults, problems } = parse(`${spec}\n`);
    expect(faults).toEqual([]);
    expect(problems).toEqual([expect.stringContaining(problem)]);
  });

  it("must be the first document of its file", () => {
    const one = (name: string): string =>
      `apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: ${name}}\n`;
    const { resources, problems } = parseResources(`# both\n---\n${one("a")}---\n${one("b")}`, "f.yaml");
    expect(resources.map(({ name }) => name)).toEqual(["a"]);
    expect(problems.map(formatProblem)).toEqual([
      "f.yaml:7:1: Resiliency b is ignored: only the first document of a file is read as one; " +
        "move it to a file of its own",
    ]);
  });
});
