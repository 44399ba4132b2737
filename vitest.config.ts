// Two projects: `unit` (pure code, many files at once) and `process` (real nats-server, sidecars and apps, few files
// at once, because they share two cores). `npm run check` runs the first, `npm test` both, unit first.
import { defineConfig } from "vitest/config";

const unitTests = ["mesh", "src", "scripts", "test/docs", "test/kit"].map(
  (folder) => `${folder}/**/*.test.ts`,
);
const processTests = ["integration", "contract", "compat", "proto"].map(
  (kind) => `test/${kind}/**/*.test.ts`,
);

export default defineConfig({
  test: {
    passWithNoTests: false,
    projects: [
      {
        test: {
          name: "unit",
          include: [...unitTests, "test/*.test.ts"],
          // No module holds state (tidy sees to it), so files may share a process: three times as fast.
          isolate: false,
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: "process",
          include: processTests,
          setupFiles: ["test/kit/setup.ts"],
          pool: "forks",
          maxWorkers: 2,
          // Each wait in a test has a limit that says what was waited for; this one only ends what hangs.
          testTimeout: 240_000,
          hookTimeout: 240_000,
          teardownTimeout: 30_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
