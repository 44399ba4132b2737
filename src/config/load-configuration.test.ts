import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { DEFAULT_CONFIGURATION } from "./kinds/configuration.ts";
import { loadConfiguration } from "./load-configuration.ts";
import { withOtelEnv } from "./otel-env.ts";
import { SettingError } from "./setting-error.ts";

const directory = mkdtempSync(join(tmpdir(), "weft-config-"));
afterAll(() => rmSync(directory, { recursive: true }));

function file(name: string, text: string): string {
  writeFileSync(join(directory, name), text);
  return join(directory, name);
}

describe("loadConfiguration", () => {
  it("gives the defaults without files", async () => {
    expect(await loadConfiguration([], {})).toEqual(DEFAULT_CONFIGURATION);
  });

  it("replaces variables and merges", async () => {
    const first = file(
      "a.yaml",
      'spec: {tracing: {samplingRate: "$RATE", zipkin: {endpointAddress: "http://${APP_ID}:1$NONE"}}}',
    );
    const second = file("b.yaml", "spec: {tracing: {stdout: true}}");
    const { tracing } = await loadConfiguration([first, second], { RATE: "0.25", APP_ID: "shop" });
    expect(tracing).toMatchObject({ samplingRate: "0.25", zipkinEndpoint: "http://shop:1", stdout: true });
  });

  it("ends the start when a file is missing or a directory", async () => {
    const missing = join(directory, "none.yaml");
    await expect(loadConfiguration([missing], {})).rejects.toThrow(
      new SettingError(
        `error loading configuration: stat ${missing}: no such file or directory (correct --config)`,
      ),
    );
    await expect(loadConfiguration([directory], {})).rejects.toThrow("is a directory (correct --config)");
  });
});

describe("withOtelEnv", () => {
  const { tracing } = DEFAULT_CONFIGURATION;

  it.each([
    [{}, { samplingRate: "", otel: { endpoint: "", protocol: "" } }],
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: "http://o:4318" },
      { samplingRate: "1", otel: { endpoint: "o:4318", protocol: "grpc", isSecure: true } },
    ],
    [
      {
        OTEL_EXPORTER_OTLP_ENDPOINT: "https://general",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://traces:4318",
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
        OTEL_EXPORTER_OTLP_INSECURE: "true",
        OTEL_EXPORTER_OTLP_HEADERS: "a=1, b=2",
        OTEL_EXPORTER_OTLP_TIMEOUT: "2500",
      },
      {
        otel: {
          endpoint: "traces:4318",
          protocol: "http",
          isSecure: false,
          headers: ["a=1", "b=2"],
          timeoutMs: 2_500,
        },
      },
    ],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "o", OTEL_EXPORTER_OTLP_TIMEOUT: "soon" }, { otel: { timeoutMs: 0 } }],
  ])("reads %j", (env, expected) => {
    expect(withOtelEnv(tracing, env)).toMatchObject(expected);
  });

  it("changes nothing when the Configuration names an endpoint", () => {
    const configured = { ...tracing, otel: { ...tracing.otel, endpoint: "mine" } };
    expect(withOtelEnv(configured, { OTEL_EXPORTER_OTLP_ENDPOINT: "o" })).toBe(configured);
    const rated = { ...tracing, samplingRate: "0" };
    expect(withOtelEnv(rated, { OTEL_EXPORTER_OTLP_ENDPOINT: "o" }).samplingRate).toBe("0");
  });
});
