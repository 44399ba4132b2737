import { expect, it } from "vitest";
import { missingEntries } from "./complete-lock.ts";

const tool = (optionalDependencies: Record<string, string>): { packages: Record<string, object> } => ({
  packages: {
    "": { optionalDependencies: { own: "1.0.0" } },
    "node_modules/a/node_modules/tool": { optionalDependencies },
  },
});

it.each([
  ["@tool/darwin-arm64", { cpu: ["arm64"], os: ["darwin"] }],
  ["@tool/binding-linux-x64-musl", { cpu: ["x64"], libc: ["musl"], os: ["linux"] }],
  ["@tool/binding-linux-ppc64-gnu", { cpu: ["ppc64"], libc: ["glibc"], os: ["linux"] }],
  ["@tool/android-arm-eabi", { cpu: ["arm"], os: ["android"] }],
  ["tool-linux-armv7", { cpu: ["arm"], os: ["linux"] }],
  ["tool-win32-ia32-msvc", { cpu: ["ia32"], os: ["win32"] }],
])("%s gets its platform from its name", (name, platform) => {
  const lock = tool({ [name]: "1.2.3" });
  expect(missingEntries(lock)).toEqual({
    [`node_modules/${name}`]: { version: "1.2.3", optional: true, ...platform },
  });
});

it.each(["node_modules/x-linux-x64", "node_modules/a/node_modules/x-linux-x64"])(
  "%s is found where it is",
  (path) => {
    const lock = tool({ "x-linux-x64": "1.0.0" });
    lock.packages[path] = { version: "1.0.0" };
    expect(missingEntries(lock)).toEqual({});
  },
);

it("an optional package of no known platform is an error, not a guess", () => {
  expect(() => missingEntries(tool({ fsevents: "2.0.0" }))).toThrow(/fsevents .* tells no platform/);
});
