// `npm run check`: types, lint, format, tidy and unit tests side by side, then one table. Under a minute.
// `npm run check -- lint types` runs the named steps only; `--write` lets format and lint mend what they can.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type CommandResult, endToolsOnSignal, root, runNode, say } from "./command.ts";

interface Step {
  readonly name: string;
  readonly about: string;
  run(write: boolean): Promise<CommandResult>;
}

const steps: readonly Step[] = [
  {
    name: "types",
    about: "tsc --noEmit",
    run: () => runNode("node_modules/typescript/bin/tsc", ["--noEmit", "-p", "."]),
  },
  {
    name: "lint",
    about: "oxlint, type-aware",
    run: (write) => runNode("node_modules/oxlint/bin/oxlint", write ? ["--fix"] : []),
  },
  {
    name: "format",
    about: "oxfmt",
    run: (write) => runNode("node_modules/oxfmt/bin/oxfmt", write ? [] : ["--check"]),
  },
  {
    name: "unit",
    about: "vitest: unit and tidy",
    run: () => runNode("node_modules/vitest/vitest.mjs", ["run", "--project", "unit"]),
  },
];

function chooseSteps(names: readonly string[]): readonly Step[] {
  const known = steps.map((step) => step.name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    say(`check: no step "${unknown}"; the steps are ${known.join(", ")} (and the flag --write)`);
    process.exit(2);
  }
  return names.length === 0 ? steps : steps.filter((step) => names.includes(step.name));
}

function printTable(rows: readonly { step: Step; result: CommandResult }[], seconds: number): void {
  say("\nstep    time     outcome");
  for (const { step, result } of rows) {
    const outcome = result.code === 0 ? "ok" : "FAILED";
    say(
      `${step.name.padEnd(7)} ${`${result.seconds.toFixed(1)} s`.padEnd(8)} ${outcome.padEnd(7)} ${step.about}`,
    );
  }
  const failed = rows.filter(({ result }) => result.code !== 0).length;
  const verdict = failed === 0 ? "all steps passed" : `${failed} of ${rows.length} steps failed`;
  say(`total   ${seconds.toFixed(1)} s    ${verdict}`);
}

async function main(args: readonly string[]): Promise<number> {
  endToolsOnSignal();
  const write = args.includes("--write");
  const chosen = chooseSteps(args.filter((arg) => arg !== "--write"));
  if (!existsSync(join(root, "node_modules")))
    throw new Error("node_modules is missing: use `npm run check`");
  const started = performance.now();
  const rows = await Promise.all(
    chosen.map(async (step) => {
      const result = await step.run(write);
      if (result.code !== 0) say(`\n--- ${step.name} failed ---\n${result.output.trim()}`);
      return { step, result };
    }),
  );
  printTable(rows, (performance.now() - started) / 1000);
  return rows.every(({ result }) => result.code === 0) ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
