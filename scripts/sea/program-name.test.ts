import { expect, it } from "vitest";
import { isCli } from "./program-name.ts";

it.each([
  ["weft", "/opt/weft", true],
  ["./dist/weft", "/repo/dist/weftd", true],
  ["weftd", "/opt/weft", false],
  ["/usr/local/bin/daprd", "/usr/local/bin/daprd", false],
  ["weft-linux-x64", "/opt/weft-linux-x64", true],
  ["weftd-0.1.0", "/opt/weftd-0.1.0", false],
  ["sidecar", "/opt/weft", true],
  ["sidecar", "/opt/sidecar", false],
  ["wefty", "/opt/wefty", false],
])("called %s, file %s: CLI is %s", (argv0, execPath, cli) => {
  expect(isCli(argv0, execPath)).toBe(cli);
});
