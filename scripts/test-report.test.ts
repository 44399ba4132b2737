import { expect, it } from "vitest";
import { closingLine, countTests, type Report } from "./test-report.ts";

const file = (status: "passed" | "failed", ...tests: string[]): Report["testResults"][number] => ({
  status,
  assertionResults: tests.map((test) => ({ status: test })),
});

it.each([
  [[file("passed", "passed", "passed")], "2 passed, 0 failed"],
  [[file("failed", "passed", "failed"), file("passed", "passed")], "2 passed, 1 failed"],
  [[file("failed"), file("passed", "passed")], "1 passed, 1 failed"],
  [[file("failed", "skipped", "passed")], "1 passed, 1 failed, 1 skipped"],
  [[file("passed", "pending", "todo")], "0 passed, 0 failed, 2 skipped"],
  [[], "0 passed, 0 failed"],
])("%j closes as %s", (testResults, line) => {
  expect(closingLine(countTests({ testResults }))).toBe(line);
});
