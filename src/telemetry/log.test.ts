import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { tempDir } from "../../test/kit/temp-dir.ts";
import { type Log, openLog, type LogOptions } from "./log.ts";

/** What is written by `use`, to a file. */
async function written(options: Partial<LogOptions>, use: (log: Log) => void): Promise<string[]> {
  await using folder = tempDir("log");
  const file = join(folder.path, "log");
  const { log, close } = openLog({
    level: "info",
    json: false,
    file,
    appId: "shop",
    instance: "host-1",
    version: "1.2.3",
    clock: manualClock(),
    ...options,
  });
  use(log);
  close();
  return readFileSync(file, "utf8").split("\n").slice(0, -1);
}

describe("text lines", () => {
  it("have time, level and message first, then sorted fields, quoted where that is needed", async () => {
    const lines = await written({}, (log) => {
      log.info("two words");
      log.warn('a "quote" \n and ünïcode \u0007', { b: "x y", a: 1, c: "", d: "plain-._/@^+" });
      log.scope("dapr.runtime.http").error("single", { component: "store (state.nats/v1)" });
    });
    const time = 'time="2025-01-01T00:00:00Z"';
    const fixed = "app_id=shop";
    expect(lines).toEqual([
      `${time} level=info msg="two words" ${fixed} instance=host-1 scope=dapr.runtime type=log ver=1.2.3`,
      `${time} level=warning msg="a \\"quote\\" \\n and ünïcode \\a" a=1 ${fixed} b="x y" c= d=plain-._/@^+ ` +
        "instance=host-1 scope=dapr.runtime type=log ver=1.2.3",
      `${time} level=error msg=single ${fixed} component="store (state.nats/v1)" instance=host-1 ` +
        "scope=dapr.runtime.http type=log ver=1.2.3",
    ]);
  });

  it.each([
    ["debug", ["debug", "info", "warning", "error", "fatal", "info"]],
    ["info", ["info", "warning", "error", "fatal", "info"]],
    ["warn", ["warning", "error", "fatal", "info"]],
    ["error", ["error", "fatal", "info"]],
    ["fatal", ["fatal", "info"]],
  ] as const)("of level %s and above are written, and what is written always", async (level, levels) => {
    const lines = await written({ level }, (log) => {
      for (const name of ["debug", "info", "warn", "error", "fatal", "always"] as const) log[name]("x");
    });
    expect(lines.map((line) => /level=(\w+)/.exec(line)?.[1])).toEqual(levels);
  });
});

it("JSON lines are objects with sorted keys and Go's escapes", async () => {
  const [line] = await written({ json: true }, (log) => log.info("<a> & b", { n: 5 }));
  expect(line).toBe(
    String.raw`{"app_id":"shop","instance":"host-1","level":"info","msg":"\u003ca\u003e \u0026 b","n":5,` +
      '"scope":"dapr.runtime","time":"2025-01-01T00:00:00Z","type":"log","ver":"1.2.3"}',
  );
});

it("a file gets text although there is a terminal", async () => {
  const [line] = await written({ terminal: true }, (log) => log.info("hello there"));
  expect(line).toMatch(/^time="/);
});
