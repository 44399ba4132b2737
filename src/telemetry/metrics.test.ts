import { describe, expect, it } from "vitest";
import { DEFAULT_CONFIGURATION } from "../config/kinds/configuration.ts";
import { createMetrics } from "./metrics.ts";

/** The lines of one family. */
function lines(text: string, name: string): string[] {
  return text.split("\n").filter((line) => line.includes(name));
}

describe("metrics", () => {
  it("counts by labels, sorted by name, and shows a family after its first record only", () => {
    const metrics = createMetrics("my-app");
    const count = metrics.count("calls_total", "Calls.", ["status", "method"]);
    expect(metrics.render()).not.toContain("calls_total");
    count("200", "GET");
    count("200", "GET");
    count("500", 'P"\\\n');
    expect(lines(metrics.render(), "dapr_calls_total")).toEqual([
      "# HELP dapr_calls_total Calls.",
      "# TYPE dapr_calls_total counter",
      'dapr_calls_total{app_id="my-app",method="GET",status="200"} 2',
      'dapr_calls_total{app_id="my-app",method="P\\"\\\\\\n",status="500"} 1',
    ]);
  });

  it("shows the value that a gauge was set to last", () => {
    const metrics = createMetrics("a");
    const gauge = metrics.gauge("depth", "Depth.", ["queue"]);
    gauge(7, "x");
    gauge(3, "x");
    expect(lines(metrics.render(), "dapr_depth")).toEqual([
      "# HELP dapr_depth Depth.",
      "# TYPE dapr_depth gauge",
      'dapr_depth{app_id="a",queue="x"} 3',
    ]);
  });

  it("puts a latency into the first bucket that holds it; buckets are cumulative", () => {
    const metrics = createMetrics("a");
    const latency = metrics.latency("wait", "Wait.", []);
    for (const ms of [0, 1, 1.5, 100_000, 100_001]) latency(ms);
    const found = lines(metrics.render(), "dapr_wait");
    expect(found).toContain('dapr_wait_bucket{app_id="a",le="1"} 2');
    expect(found).toContain('dapr_wait_bucket{app_id="a",le="2"} 3');
    expect(found).toContain('dapr_wait_bucket{app_id="a",le="100000"} 4');
    expect(found).toContain('dapr_wait_bucket{app_id="a",le="+Inf"} 5');
    expect(found).toContain('dapr_wait_sum{app_id="a"} 200003.5');
    expect(found).toContain('dapr_wait_count{app_id="a"} 5');
  });

  it("bounds the series of a family; the rest is visible as overflow", () => {
    const metrics = createMetrics("a");
    const count = metrics.count("paths_total", "Paths.", ["path"]);
    for (let i = 0; i < 2_500; i++) count(`/p${i}`);
    const found = lines(metrics.render(), "dapr_paths_total{");
    expect(found).toHaveLength(2_001);
    expect(found.at(-1)).toBe('dapr_paths_total{app_id="a",path="overflow"} 500');
  });

  it("never shows two series with the same labels, also when a caller's own are those of the overflow", () => {
    const metrics = createMetrics("a");
    const one = metrics.count("one_total", "One.", ["path"]);
    const two = metrics.count("two_total", "Two.", ["path", "verb"]);
    one("overflow");
    two("overflow", "overflow");
    for (let i = 0; i < 2_500; i++) {
      one(`/p${i}`);
      two(`/p${i}`, "GET");
    }
    const overflow = (name: string): string[] =>
      lines(metrics.render(), `dapr_${name}{app_id="a",path="overflow"`);
    expect(overflow("one_total")).toEqual(['dapr_one_total{app_id="a",path="overflow"} 502']);
    expect(overflow("two_total")).toEqual(['dapr_two_total{app_id="a",path="overflow",verb="overflow"} 502']);
  });

  it("gives the same family for the same name", () => {
    const metrics = createMetrics("a");
    metrics.count("x_total", "X.", [])();
    metrics.count("x_total", "X.", [])();
    expect(lines(metrics.render(), "dapr_x_total{")).toEqual(['dapr_x_total{app_id="a"} 2']);
  });

  it("says in a metric of its own which families overflow", () => {
    const metrics = createMetrics("a");
    const count = metrics.count("paths_total", "Paths.", ["path"]);
    for (let i = 0; i < 2_003; i++) count(`/p${i}`);
    metrics.count("few_total", "Few.", ["path"])("/");
    expect(lines(metrics.render(), "overflow_total{")).toEqual([
      'dapr_runtime_metrics_overflow_total{app_id="a",metric="dapr_paths_total"} 3',
    ]);
  });

  it("knows sizes and gauges", () => {
    const metrics = createMetrics("a");
    const size = metrics.size("sent_bytes", "Sent.", []);
    for (const bytes of [1_024, 1_025, 2 ** 33]) size(bytes);
    const found = lines(metrics.render(), "dapr_sent_bytes");
    expect(found).toContain('dapr_sent_bytes_bucket{app_id="a",le="1024"} 1');
    expect(found).toContain('dapr_sent_bytes_bucket{app_id="a",le="2048"} 2');
    expect(found).toContain('dapr_sent_bytes_bucket{app_id="a",le="4294967296"} 2');
    expect(found).toContain('dapr_sent_bytes_bucket{app_id="a",le="+Inf"} 3');
    const gauge = metrics.gauge("open", "Open.", ["what"]);
    gauge(3, "x");
    gauge(1, "x");
    expect(lines(metrics.render(), "dapr_open{")).toEqual(['dapr_open{app_id="a",what="x"} 1']);
    expect(metrics.render()).toContain("# TYPE dapr_open gauge");
  });

  it("takes buckets, rules and error codes from the Configuration", () => {
    const settings = {
      ...DEFAULT_CONFIGURATION.metrics,
      recordErrorCodes: true,
      latencyBuckets: [10, 100],
      rules: [
        {
          name: "dapr_calls_total",
          labels: [{ name: "path", regex: [{ replacement: "/orders/{id}", pattern: "/orders/\\d+" }] }],
        },
      ],
    };
    const metrics = createMetrics("a", settings);
    metrics.latency("wait", "Wait.", [])(50);
    const count = metrics.count("calls_total", "Calls.", ["verb", "path"]);
    for (const path of ["/orders/1", "/orders/22", "/other"]) count("GET", path);
    metrics.errorCode("ERR_STATE_GET");
    metrics.errorCode("ERR_DIRECT_INVOKE");
    metrics.errorCode("ERR_BODY_READ");
    const text = metrics.render();
    expect(lines(text, "dapr_wait_bucket").map((line) => line.replace(/.*le=/, ""))).toEqual([
      '"10"} 0',
      '"100"} 1',
      '"+Inf"} 1',
    ]);
    expect(lines(text, "dapr_calls_total{")).toEqual([
      'dapr_calls_total{app_id="a",path="/orders/{id}",verb="GET"} 2',
      'dapr_calls_total{app_id="a",path="/other",verb="GET"} 1',
    ]);
    expect(lines(text, "dapr_error_code_total{")).toEqual([
      'dapr_error_code_total{app_id="a",category="state",error_code="ERR_STATE_GET"} 1',
      'dapr_error_code_total{app_id="a",category="service-invocation",error_code="ERR_DIRECT_INVOKE"} 1',
      'dapr_error_code_total{app_id="a",category="common",error_code="ERR_BODY_READ"} 1',
    ]);
    createMetrics("a").errorCode("ERR_STATE_GET");
  });

  it("tells about the process", () =>
    expect(createMetrics("a").render()).toMatch(/process_resident_memory_bytes \d+/));
});
