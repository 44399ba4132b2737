import { describe, expect, it } from "vitest";
import { readScopes } from "./scopes.ts";

describe("topic scopes", () => {
  it.each([
    [{}, "app", "t1", true],
    [{ publishingScopes: "app=t1,t2;other=t3" }, "app", "t1", true],
    [{ publishingScopes: " app = t1 , t2 ; other=t3" }, "app", "t2", true],
    [{ publishingScopes: "app=t1" }, "app", "t3", false],
    [{ publishingScopes: "app=" }, "app", "t1", false],
    [{ publishingScopes: "other=t3" }, "app", "t1", true],
    [{ publishingScopes: "app=t1;other=t3;app=t2" }, "app", "t1", true],
    [{ publishingScopes: "app" }, "app", "t1", true],
    [{ PUBLISHINGSCOPES: "app=t1" }, "app", "t3", false],
    [{ publishingScopes: "app=t1" }, "app", "T1", false],
    [{ subscriptionScopes: "app=t1" }, "app", "t3", true],
    [{ allowedTopics: "t1,t2" }, "app", "t1", true],
    [{ allowedTopics: "t1,t2" }, "app", "t3", false],
    [{ allowedTopics: "t1", publishingScopes: "app=t3" }, "app", "t3", false],
    [{ protectedTopics: "t1" }, "app", "t1", false],
    [{ protectedTopics: "t1" }, "app", "t2", true],
    [{ protectedTopics: "t1", publishingScopes: "app=t1" }, "app", "t1", true],
    [{ protectedTopics: "t1", publishingScopes: "other=t1" }, "app", "t1", false],
  ])("%j lets %s publish to %s: %s", (properties, app, topic, allowed) => {
    expect(readScopes(properties as Record<string, string>, app).mayPublish(topic)).toBe(allowed);
  });

  it("has its own list for subscribing", () => {
    const scopes = readScopes({ subscriptionScopes: "app=t1", publishingScopes: "app=t2" }, "app");
    expect([scopes.maySubscribe("t1"), scopes.maySubscribe("t2")]).toEqual([true, false]);
    expect([scopes.mayPublish("t1"), scopes.mayPublish("t2")]).toEqual([false, true]);
  });
});
