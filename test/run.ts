// `npm test`: its own set-up (Python packages, executables where a test wants them), then every suite through vitest,
// then one closing line "N passed, N failed". Arguments go on to vitest: `npm test -- state`, `-- --project unit`.
import { existsSync, globSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { endToolsOnSignal, root, runNode, say } from "../scripts/command.ts";
import { ensurePython } from "../scripts/python.ts";
import { closingLine, countTests, type Counts, type Report } from "../scripts/test-report.ts";

const reportFile = join(root, ".cache", `test-report-${process.pid}.json`);

async function setUp(args: readonly string[]): Promise<Record<string, string>> {
  if (args.includes("unit")) return {};
  const env: Record<string, string> = {};
  const python = await ensurePython();
  if (python !== undefined) env["WEFT_TEST_PYTHON"] = python;
  if (aTestNeedsExecutables()) {
    const built = await runNode("scripts/build.ts", ["--if-stale"], { passThrough: true });
    if (built.code !== 0) throw new Error("npm run build failed, see above");
  }
  return env;
}

/** True when a test starts the built executables, which it can only do by naming their folder. */
function aTestNeedsExecutables(): boolean {
  const files = globSync("test/{integration,contract,compat,docs}/**/*.test.ts", { cwd: root });
  return files.some((file) =>
    /\bdist\/weftd?\b|"dist", "weftd?"/.test(readFileSync(join(root, file), "utf8")),
  );
}

function readReport(): Report | undefined {
  if (!existsSync(reportFile)) return undefined;
  const report = JSON.parse(readFileSync(reportFile, "utf8")) as Report;
  rmSync(reportFile);
  return report;
}

function close(counts: Counts): number {
  say(`\n${closingLine(counts)}`);
  return counts.failed > 0 || counts.passed === 0 ? 1 : 0;
}

async function main(args: readonly string[]): Promise<number> {
  endToolsOnSignal();
  mkdirSync(join(root, ".cache"), { recursive: true });
  let env: Record<string, string>;
  try {
    env = await setUp(args);
  } catch (error) {
    say(`set-up failed: ${error instanceof Error ? error.message : String(error)}`);
    return close({ passed: 0, failed: 1, skipped: 0 });
  }
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
  const ran = await runNode("node_modules/vitest/vitest.mjs", ["run", ...reporters, ...args], {
    passThrough: true,
    env,
  });
  const report = readReport();
  if (report === undefined) say("vitest ended without a report, see above");
  const counts = report === undefined ? { passed: 0, failed: 1, skipped: 0 } : countTests(report);
  if (ran.code !== 0 && counts.failed === 0) {
    const why =
      counts.passed === 0 ? "no test ran" : `vitest ended with exit code ${ran.code} though no test failed`;
    say(`${why}: counted as one failure, see above`);
    counts.failed = 1;
  }
  return close(counts);
}

process.exitCode = await main(process.argv.slice(2));
