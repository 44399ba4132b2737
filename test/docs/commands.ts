// The command lines of the docs' ```sh blocks, and what may stand in them: npm scripts, files, subcommands, flags.
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Command } from "commander";
import type { CommandHost } from "../../src/cli/host.ts";
import { FLAG_GROUPS, type FlagRow } from "../../src/config/flag-table.ts";
import { parseFlags } from "../../src/config/flags.ts";
import type { Fence } from "./markdown.ts";

export type CommandLine = { readonly words: readonly string[]; readonly line: number };

/** Every flag of weftd by name, without dashes. */
export const weftdFlags: ReadonlySet<string> = new Set(
  FLAG_GROUPS.flatMap((group): readonly FlagRow[] => group.flags).map((row) => row.name),
);

/** Commands of a block: continued lines joined, comments dropped, `&&`, `|` and `;` outside quotes between commands. */
export function commandLines(fence: Fence): CommandLine[] {
  const lines: CommandLine[] = [];
  let held = "";
  for (const [i, raw] of fence.text.split("\n").entries()) {
    if (raw.endsWith("\\")) {
      held += `${raw.slice(0, -1)} `;
      continue;
    }
    for (const words of splitCommands(held + raw)) lines.push({ words, line: fence.line + 1 + i });
    held = "";
  }
  return lines;
}

function splitCommands(text: string): string[][] {
  const commands: string[][] = [[]];
  for (const [word] of text.matchAll(/&&|[|;]|#.*|(?:'[^']*'|"[^"]*"|[^\s|;'"])+/g)) {
    if (word.startsWith("#")) break;
    if (["&&", "|", ";"].includes(word)) commands.push([]);
    else commands.at(-1)!.push(word.replace(/^['"]|['"]$/g, ""));
  }
  return commands.filter((words) => words.length > 0);
}

export class CommandChecker {
  readonly #root: string;
  readonly #scripts: ReadonlySet<string>;
  readonly #weftFlags: ReadonlyMap<string, ReadonlySet<string>>;

  private constructor(root: string, weft: Command) {
    this.#root = root;
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: object };
    this.#scripts = new Set(Object.keys(manifest.scripts));
    this.#weftFlags = new Map(
      weft.commands.map((command) => [
        command.name(),
        new Set(
          [command, ...command.commands]
            .flatMap(({ options }) => options)
            .flatMap(({ long, short }) => [long ?? "", short ?? ""]),
        ),
      ]),
    );
  }

  /** Reads the scripts of package.json and the commands of `weft`. */
  static async open(root: string): Promise<CommandChecker> {
    const weft = new Command("weft").enablePositionalOptions();
    for (const path of globSync("src/cli/*.ts", { cwd: root })) {
      if (path.endsWith(".test.ts") || path.endsWith("main.ts")) continue;
      const module = (await import(pathToFileURL(join(root, path)).href)) as Record<string, unknown>;
      for (const [name, add] of Object.entries(module)) {
        // Nothing of the host is touched before a command runs.
        if (/^add\w+Command$/.test(name))
          (add as (program: Command, host: CommandHost) => void)(weft, {} as CommandHost);
      }
    }
    return new CommandChecker(root, weft);
  }

  /** What is wrong with a command line, in words; undefined when it is fine or none of ours. */
  problem({ words }: CommandLine): string | undefined {
    const [program = "", ...args] = words;
    if (program === "npm") return this.#npm(args);
    if (program === "node") return this.#file(args[0] ?? "");
    const name = /^(?:(?:\.\.\/)*(?:bin|dist)\/)?(weftd?)$/.exec(program)?.[1];
    if (name === "weftd") return this.#weftd(args);
    return name === "weft" ? this.#weft(args) : undefined;
  }

  #npm([command = "", script = ""]: readonly string[]): string | undefined {
    const wanted = command === "run" ? script : command;
    if (["ci", "install"].includes(wanted) || this.#scripts.has(wanted)) return undefined;
    return `package.json has no script "${wanted}"`;
  }

  /** Only for paths of this repository; `node app.js` in an example is the reader's own. */
  #file(path: string): string | undefined {
    return !path.includes("/") || existsSync(join(this.#root, path)) ? undefined : `there is no ${path}`;
  }

  #weftd(args: readonly string[]): string | undefined {
    const outcome = parseFlags(args, {}, { version: "", commit: "" });
    const refused = outcome.kind === "print" && outcome.exitCode !== 0;
    return refused ? outcome.text.trimEnd().split("\n").at(-1) : undefined;
  }

  #weft([command = "", ...args]: readonly string[]): string | undefined {
    const known = this.#weftFlags.get(command);
    if (known === undefined) return `weft has no command "${command}"`;
    const end = args.indexOf("--");
    const flags = (end < 0 ? args : args.slice(0, end)).map(
      (word) => /^(--[\w-]+|-\w)(?:=|$)/.exec(word)?.[1],
    );
    const unknown = flags.find((flag) => flag !== undefined && !known.has(flag) && flag !== "--help");
    return unknown === undefined ? undefined : `weft ${command} has no flag ${unknown}`;
  }
}
