import { describe, expect, it } from "vitest";
import { silentLog } from "../../../test/contract/silent-log.ts";
import type { SecretStore } from "../../blocks/secrets/port.ts";
import { open } from "./local-env.ts";

const env = {
  APP_DB: "db",
  APP_API_TOKEN: "no",
  app_api_token: "no",
  DAPR_API_TOKEN: "no",
  dapr_x: "no",
  OTHER: "o",
};
const signal = new AbortController().signal;

function store(prefix?: string): Promise<SecretStore> {
  const rest = {
    mesh: undefined as never,
    clock: undefined as never,
    log: silentLog,
    signal,
    properties: {},
  };
  const who = { name: "s", type: "t", version: "v1", appId: "a", namespace: "n" };
  return open({ ...who, ...rest, metadata: { prefix }, env });
}

describe("secretstores.local.env", () => {
  it("shows all variables but those of Dapr", async () => {
    expect(await (await store()).getAll({}, signal)).toEqual({
      APP_DB: { APP_DB: "db" },
      OTHER: { OTHER: "o" },
    });
  });

  it.each(["APP_API_TOKEN", "app_api_token", "DAPR_API_TOKEN", "dapr_x"])("gives %s empty", async (name) => {
    expect(await (await store()).get(name, {}, signal)).toEqual({ [name]: "" });
  });

  it("puts a prefix before the name", async () => {
    const prefixed = await store("APP_");
    expect(await prefixed.get("DB", {}, signal)).toEqual({ DB: "db" });
    expect(await prefixed.get("OTHER", {}, signal)).toEqual({ OTHER: "" });
    expect(await prefixed.get("API_TOKEN", {}, signal)).toEqual({ API_TOKEN: "" });
    expect(await prefixed.getAll({}, signal)).toEqual({ DB: { DB: "db" } });
  });
});
