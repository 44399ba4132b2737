import { describe, expect, it } from "vitest";
import type { ComponentResource } from "../config/kinds/component.ts";
import type { SidecarOptions } from "../config/options.ts";
import { withBuiltIn } from "./load.ts";

function typesOf(
  mode: SidecarOptions["mode"],
  isWanted: boolean,
  names: readonly string[],
  env: Record<string, string> = { KUBERNETES_SERVICE_HOST: "10.0.0.1" },
): string[] {
  const resources = names.map((name) => ({ name, type: "state.x" }) as ComponentResource);
  const options = { mode, resources: { builtinKubernetesSecretStore: isWanted } } as SidecarOptions;
  return withBuiltIn(resources, { options, env }).map(({ name, type }) => `${name}: ${type}`);
}

describe("the built-in secret store", () => {
  it("comes first in Kubernetes mode in a cluster", () => {
    expect(typesOf("kubernetes", true, ["a"])).toEqual(["kubernetes: secretstores.kubernetes", "a: state.x"]);
  });

  it("is left out in other modes, when it is not wanted, and when a resource has its name", () => {
    expect(typesOf("kubernetes", true, ["a"], {})).toEqual(["a: state.x"]);
    expect(typesOf("standalone", true, ["a"])).toEqual(["a: state.x"]);
    expect(typesOf("kubernetes", false, ["a"])).toEqual(["a: state.x"]);
    expect(typesOf("kubernetes", true, ["kubernetes"])).toEqual(["kubernetes: state.x"]);
  });
});
