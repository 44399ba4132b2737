import { describe, expect, it } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { parseResources } from "../config/parse-resources.ts";
import type { ResiliencyResource } from "../config/resources.ts";
import type { Log } from "../telemetry/log.ts";
import { createMetrics } from "../telemetry/metrics.ts";
import { builtInRetries } from "./built-in.ts";
import { PolicyCompiler } from "./compile.ts";
import type { Policy } from "./policy.ts";

/** Policies of these specs, in this order; each is a resource r0, r1, ... of its own. */
function lab(...specs: string[]) {
  const clock = manualClock();
  const lines: string[] = [];
  const say =
    (level: string) =>
    (text: string): void =>
      void lines.push(`${level} ${text}`);
  const log: Log = {
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    fatal: say("fatal"),
    always: say("info"),
    scope: () => log,
  };
  const metrics = createMetrics("me");
  const compiler = new PolicyCompiler({ clock, random: () => 0.5, log, metrics });
  const policies = compiler.compile(resourcesOf(specs));
  const series = (name: string): string[] =>
    metrics
      .render()
      .split("\n")
      .filter((line) => line.startsWith(`dapr_${name}{`));
  return { clock, lines, policies, series, compiler };
}

function resourcesOf(specs: readonly string[]): ResiliencyResource[] {
  return specs.map((spec, i) => {
    const text = `apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r${i}}\nspec:\n${spec}`;
    return parseResources(text, `r${i}.yaml`).resources[0] as ResiliencyResource;
  });
}

const none = new AbortController().signal;

/** Tries that a policy makes of a call that always fails, with waits of 1 ms at most. */
async function triesOf(policy: Policy | undefined, clock: ReturnType<typeof manualClock>): Promise<number> {
  if (policy === undefined) return 1;
  let tries = 0;
  let done = false;
  const failing = policy.run(
    () => {
      tries++;
      return Promise.reject(new Error("no"));
    },
    { signal: none },
  );
  failing.catch(() => (done = true));
  while (!done) {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    clock.advance(1);
  }
  return tries;
}

/** `retries:` with constant policies of so many retries, 1 ms apart. */
function retries(named: Readonly<Record<string, number>>): string {
  const each = Object.entries(named).map(
    ([name, max]) => `      ${name}: {policy: constant, duration: 1, maxRetries: ${max}}\n`,
  );
  return `  policies:\n    retries:\n${each.join("")}`;
}

describe("targets", () => {
  it("get the policies they name; unknown names are told and ignored", async () => {
    const { policies, clock, lines } = lab(
      retries({ two: 2 }),
      "  targets:\n    apps:\n      a: {retry: two}\n      b: {retry: twoo}\n      c:\n",
    );
    expect(await triesOf(policies.app("a", "/m"), clock)).toBe(3);
    expect(policies.app("b", "/m")).toBeUndefined();
    expect(policies.app("c", "/m")).toBeUndefined();
    expect(policies.app("d", "/m")).toBeUndefined();
    expect(["a", "b", "c", "d"].map((id) => policies.targetsApp(id))).toEqual([true, true, true, false]);
    expect(lines).toContain(
      'warn r1.yaml:8: retry twoo of app b is no policy of any Resiliency, did you mean "two"?; it is ignored',
    );
  });

  it("share one table over all resources, in which the last wins", async () => {
    const { policies, clock } = lab(
      `${retries({ r: 1 })}  targets: {apps: {a: {retry: r}, b: {retry: r}}}\n`,
      retries({ r: 3 }),
      "  targets: {apps: {b: {}}}\n",
    );
    expect(await triesOf(policies.app("a", "/m"), clock)).toBe(4);
    expect(policies.app("b", "/m")).toBeUndefined();
  });

  it("of components have two directions", async () => {
    const { policies, clock } = lab(
      retries({ one: 1, two: 2 }),
      "  targets:\n    components:\n      ps: {inbound: {retry: one}, outbound: {retry: two}}\n",
    );
    expect(await triesOf(policies.component("ps", "Pubsub", "inbound"), clock)).toBe(2);
    expect(await triesOf(policies.component("ps", "Pubsub", "outbound"), clock)).toBe(3);
    expect(policies.component("other", "Pubsub", "outbound")).toBeUndefined();
  });

  it("of actors have a policy around the call and one around the turn", () => {
    const { policies } = lab(
      `  policies:\n    timeouts: {t: 1s}\n    circuitBreakers: {c: {}}\n` +
        `  targets:\n    actors:\n      Type: {timeout: t, circuitBreaker: c}\n` +
        `      Id: {circuitBreaker: c, circuitBreakerScope: id}\n`,
    );
    const of = (type: string, id: string): Policy | undefined => policies.actor(type, id)?.call;
    expect(of("Type", "1")).toBe(of("Type", "2"));
    expect(of("Id", "1")).toBe(of("Id", "1"));
    expect(of("Id", "1")).not.toBe(of("Id", "2"));
    expect(policies.actor("Type", "1")?.turn).toBeDefined();
    expect(policies.actor("Id", "1")?.turn).toBeUndefined();
    expect(policies.actor("Other", "1")).toBeUndefined();
  });
});

describe("default policies", () => {
  const all = {
    DefaultRetryPolicy: 1,
    DefaultAppRetryPolicy: 2,
    DefaultComponentRetryPolicy: 3,
    DefaultComponentOutboundRetryPolicy: 4,
    DefaultStatestoreComponentOutboundRetryPolicy: 5,
  };

  it("are picked from the most specific to the general one", async () => {
    const { policies, clock } = lab(retries(all));
    expect(await triesOf(policies.app("any", "/m"), clock)).toBe(3);
    expect(await triesOf(policies.actor("T", "1")?.call, clock)).toBe(2);
    expect(await triesOf(policies.component("s", "Statestore", "outbound"), clock)).toBe(6);
    expect(await triesOf(policies.component("p", "Pubsub", "outbound"), clock)).toBe(5);
    expect(await triesOf(policies.component("p", "Pubsub", "inbound"), clock)).toBe(4);
  });

  it("give way to any entry of the target, for both directions", () => {
    const { policies } = lab(
      `${retries(all)}  targets: {apps: {a: {}}, components: {p: {inbound: {}}}, actors: {T: {}}}\n`,
    );
    expect(policies.app("a", "/m")).toBeUndefined();
    expect(policies.component("p", "Pubsub", "inbound")).toBeUndefined();
    expect(policies.component("p", "Pubsub", "outbound")).toBeUndefined();
    expect(policies.actor("T", "1")).toBeUndefined();
  });

  it("keep breakers of apps apart", async () => {
    const { policies } = lab(
      `  policies: {circuitBreakers: {DefaultAppCircuitBreakerPolicy: {trip: consecutiveFailures >= 1}}}\n`,
    );
    const fail = (id: string): Promise<unknown> =>
      policies.app(id, "/m")!.run(() => Promise.reject(new Error("no")), { signal: none });
    await expect(fail("a")).rejects.toThrow("no");
    await expect(fail("a")).rejects.toThrow("circuit breaker is open");
    await expect(fail("b")).rejects.toThrow("no");
  });
});

describe("built-in retries", () => {
  it("are there without being defined, and can be named", async () => {
    const { policies, clock } = lab("  targets: {apps: {a: {retry: DaprBuiltInServiceRetries}}}\n");
    expect(policies.builtIn("DaprBuiltInServiceRetries")).toEqual(builtInRetries.DaprBuiltInServiceRetries);
    expect(await triesOf(policies.app("a", "/m"), clock)).toBe(4);
  });

  it("may be redefined with at least three retries, all but one", () => {
    const { policies } = lab(
      retries({
        DaprBuiltInServiceRetries: 2,
        DaprBuiltInActorRetries: -1,
        DaprBuiltInActorReminderRetries: 7,
        DaprBuiltInActorNotFoundRetries: 9,
      }),
    );
    expect(policies.builtIn("DaprBuiltInServiceRetries")).toMatchObject({ maxRetries: 3, waitMs: 1 });
    expect(policies.builtIn("DaprBuiltInActorRetries")).toMatchObject({ maxRetries: 3 });
    expect(policies.builtIn("DaprBuiltInActorReminderRetries")).toMatchObject({ maxRetries: 7 });
    expect(policies.builtIn("DaprBuiltInActorNotFoundRetries")).toMatchObject({
      maxRetries: 5,
      waitMs: 1_000,
    });
  });
});

describe("circuit breakers", () => {
  const breakers = (trip: string, rest = ""): string =>
    `  policies: {circuitBreakers: {c: {trip: "${trip}"}}}\n` +
    `  targets:\n    apps:\n      a: {circuitBreaker: c${rest}}\n`;

  it("trip by CEL over all counts, one breaker for each method", async () => {
    const { policies } = lab(
      breakers("requests >= 4 && totalFailures * 2 > requests && consecutiveSuccesses == 0"),
    );
    const call = (method: string, ok: boolean): Promise<unknown> =>
      policies
        .app("a", method)!
        .run(() => (ok ? Promise.resolve() : Promise.reject(new Error("no"))), { signal: none });
    await call("/m", true);
    for (let i = 0; i < 3; i++) await expect(call("/m", false)).rejects.toThrow("no");
    await expect(call("/m", true)).rejects.toThrow("circuit breaker is open");
    await expect(call("/n", true)).resolves.toBeUndefined();
  });

  it("are forgotten when more methods are called than the target keeps", () => {
    const { policies } = lab(breakers("consecutiveFailures > 1", ", circuitBreakerCacheSize: 2"));
    const first = policies.app("a", "/1");
    expect(policies.app("a", "/2")).not.toBe(first);
    expect(policies.app("a", "/1")).toBe(first);
    policies.app("a", "/3");
    expect(policies.app("a", "/1")).toBe(first);
    policies.app("a", "/2");
    policies.app("a", "/3");
    expect(policies.app("a", "/1")).not.toBe(first);
  });

  it("of a component are shared by both directions", async () => {
    const { policies } = lab(
      "  policies: {circuitBreakers: {c: {trip: consecutiveFailures >= 1}}}\n" +
        "  targets: {components: {p: {inbound: {circuitBreaker: c}, outbound: {circuitBreaker: c}}}}\n",
    );
    const fail = (direction: "inbound" | "outbound"): Promise<unknown> =>
      policies
        .component("p", "Pubsub", direction)!
        .run(() => Promise.reject(new Error("no")), { signal: none });
    await expect(fail("inbound")).rejects.toThrow("no");
    await expect(fail("outbound")).rejects.toThrow("circuit breaker is open");
  });

  it("with an expression that fails for some counts do not trip then, and say so once", async () => {
    const { policies, lines } = lab(breakers("1 / totalSuccesses > 5"));
    const fail = (): Promise<unknown> =>
      policies.app("a", "/m")!.run(() => Promise.reject(new Error("no")), { signal: none });
    for (let i = 0; i < 3; i++) await expect(fail()).rejects.toThrow("no");
    expect(lines.filter((line) => line.includes("trip expression fails"))).toHaveLength(1);
  });

  it.each([
    ["consecutiveFailures >", "Unexpected token: EOF"],
    ["failures > 5", "Unknown variable: failures"],
    ["consecutiveFailures + 1", "it gives int where true or false is wanted"],
    ["consecutiveFailures == 'a'", "no such overload"],
  ])("refuse %s: the whole resource has no effect", (trip, why) => {
    const { policies, lines, series } = lab(
      `  policies:\n    timeouts: {t: 1s}\n    circuitBreakers:\n      c:\n        trip: "${trip}"\n` +
        "  targets: {apps: {a: {timeout: t}}}\n",
    );
    expect(policies.app("a", "/m")).toBeUndefined();
    expect(lines).toEqual([
      expect.stringContaining(
        `error Could not read resiliency policy r0: r0.yaml:9:9: ` +
          `spec.policies.circuitBreakers.c.trip "${trip}": ${why}`,
      ),
    ]);
    expect(series("resiliency_loaded")).toEqual([]);
  });
});

it("tells of loads, calls, activations and states under the names of the contract", async () => {
  const { policies, clock, series } = lab(
    "  policies:\n    timeouts: {t: 5ms}\n    retries: {r: {duration: 1, maxRetries: 2}}\n" +
      "    circuitBreakers: {c: {trip: consecutiveFailures >= 3, timeout: 1s}}\n" +
      "  targets: {apps: {a: {timeout: t, retry: r, circuitBreaker: c}}}\n",
  );
  expect(await triesOf(policies.app("a", "/m"), clock)).toBe(3);
  const of = (policy: string, status: string): string =>
    `app_id="me",flow_direction="outbound",name="r0",namespace="",policy="${policy}",status="${status}",target="app_a"`;
  expect(series("resiliency_loaded")).toEqual([
    'dapr_resiliency_loaded{app_id="me",name="r0",namespace=""} 1',
  ]);
  expect(series("resiliency_count")).toEqual([
    `dapr_resiliency_count{${of("timeout", "")}} 1`,
    `dapr_resiliency_count{${of("retry", "")}} 1`,
    `dapr_resiliency_count{${of("circuitbreaker", "closed")}} 1`,
  ]);
  expect(series("resiliency_activations_total")).toEqual([
    `dapr_resiliency_activations_total{${of("retry", "")}} 1`,
    `dapr_resiliency_activations_total{${of("circuitbreaker", "open")}} 1`,
  ]);
  const state = (open: number): string[] => [
    `dapr_resiliency_cb_state{${of("circuitbreaker", "closed")}} 0`,
    `dapr_resiliency_cb_state{${of("circuitbreaker", "half-open")}} ${1 - open}`,
    `dapr_resiliency_cb_state{${of("circuitbreaker", "open")}} ${open}`,
    `dapr_resiliency_cb_state{${of("circuitbreaker", "unknown")}} 0`,
  ];
  expect(series("resiliency_cb_state")).toEqual(state(1));
  clock.advance(1_000);
  const never = (): Promise<never> => new Promise(() => {});
  const slow = policies.app("a", "/m")!.run(never, { signal: none, repeatable: false });
  const said = slow.catch((error: unknown) => String(error));
  expect(series("resiliency_cb_state")).toEqual(state(0));
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  clock.advance(5);
  expect(await said).toContain("context deadline exceeded");
  expect(series("resiliency_activations_total")).toContain(
    `dapr_resiliency_activations_total{${of("timeout", "")}} 1`,
  );
});

describe("resources that change", () => {
  const spec = (timeout: string, trip: string): string =>
    `  policies:
    timeouts: {t: ${timeout}}
    circuitBreakers:
      b: {trip: ${trip}}
      DefaultCircuitBreakerPolicy: {trip: ${trip}}
  targets:
    apps: {a: {timeout: t, circuitBreaker: b}}
    components: {p: {inbound: {circuitBreaker: b}, outbound: {circuitBreaker: b}}}
`;
  const fails = (policy: Policy | undefined): Promise<string> =>
    policy!.run(() => Promise.reject(new Error("no")), { signal: none }).catch(String);

  it("keep the state of breakers whose rule is as it was, and only of those", async () => {
    const { compiler, policies, series } = lab(spec("5s", "totalFailures > 0"));
    const all = (now: typeof policies): (Policy | undefined)[] => [
      now.app("a", "/m"),
      now.app("other", "/m"),
      now.component("p", "Pubsub", "inbound"),
      now.component("s", "Statestore", "outbound"),
      now.actor("t", "1")?.call,
    ];
    for (const policy of all(policies)) await fails(policy);
    const same = compiler.compile(resourcesOf([spec("6s", "totalFailures > 0"), "  targets: {}\n"]));
    for (const policy of [...all(same), same.component("p", "Pubsub", "outbound")])
      expect(await fails(policy)).toContain("circuit breaker is open");
    expect(await fails(same.app("a", "/n"))).toContain("no");
    const other = compiler.compile(resourcesOf([spec("6s", "totalFailures > 1")]));
    for (const policy of all(other)) expect(await fails(policy)).toContain("no");
    expect(series("resiliency_loaded")).toEqual([
      'dapr_resiliency_loaded{app_id="me",name="r0",namespace=""} 3',
      'dapr_resiliency_loaded{app_id="me",name="r1",namespace=""} 1',
    ]);
  });

  it("keep what they were as long as they cannot be used; what stays is not told again", () => {
    const { compiler, lines } = lab(spec("5s", "totalFailures > 0"), "  policies: {timeouts: {lost: 1s}}\n");
    expect(lines.splice(0)).toEqual([
      "info Loading Resiliency configuration: r0",
      "info Loading Resiliency configuration: r1",
      expect.stringMatching(/^warn r1\.yaml:5: timeout lost is named by no target/),
    ]);
    const spoiled = compiler.compile(
      resourcesOf([spec("soon", "totalFailures >"), "  policies: {timeouts: {lost: 1s}}\n"]),
    );
    expect(spoiled.app("a", "/m")).toBeDefined();
    expect(lines.splice(0)).toEqual([
      expect.stringMatching(
        /^error Could not read resiliency policy r0: .*soon.*; meanwhile it is as it was/,
      ),
      expect.stringMatching(
        /^error Could not read resiliency policy r0: .*trip.*; meanwhile it is as it was/,
      ),
      expect.stringMatching(
        /^error Could not read resiliency policy r0: .*trip.*; meanwhile it is as it was/,
      ),
    ]);
    expect(compiler.compile([]).app("a", "/m")).toBeUndefined();
    expect(lines).toEqual(["info Resiliency removed: r0", "info Resiliency removed: r1"]);
  });
});
