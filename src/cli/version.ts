/** `weft version`: of the CLI and of the sidecar, which are one build. */
import { Option, type Command } from "commander";
import packageFile from "../../package.json" with { type: "json" };
import type { CommandHost } from "./host.ts";

/** What `--version` prints. */
export const versionText = `CLI version: ${packageFile.version}\nRuntime version: ${packageFile.version}`;

export function addVersionCommand(program: Command, host: CommandHost): void {
  program
    .command("version")
    .summary("print the version")
    .description("Prints the version of the CLI and of the sidecar.")
    .addOption(
      new Option("-o, --output <format>", "how to print it").choices(["text", "json"]).default("text"),
    )
    .action(({ output }: { output: "text" | "json" }) => {
      const { version } = packageFile;
      const json = JSON.stringify({ "Cli version": version, "Runtime version": version });
      host.terminal.print(output === "json" ? json : versionText);
    });
}
