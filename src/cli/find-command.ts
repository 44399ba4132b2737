/** Looks a program up as the system will, so that a mistyped command fails before anything has been started. */
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { CliError } from "./failure.ts";

/** Path of the program. Throws CliError when there is none that may be run. */
export function findCommand(name: string, env: NodeJS.ProcessEnv): string {
  if (name.includes("/")) {
    const problem = problemWith(name);
    if (problem !== undefined) throw new CliError(`cannot start ${name}: ${problem}`);
    return name;
  }
  const folders = (env["PATH"] || "/usr/local/bin:/usr/bin:/bin").split(delimiter);
  const found = folders.map((folder) => join(folder, name)).find((path) => problemWith(path) === undefined);
  if (found !== undefined) return found;
  throw new CliError(
    `cannot start "${name}": there is no such command on the PATH. Give the app's command after "--", ` +
      `such as \`weft run --app-id orders -- node app.js\``,
  );
}

function problemWith(path: string): string | undefined {
  try {
    if (statSync(path).isDirectory()) return "it is a folder";
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EACCES") return "it is not executable (chmod +x makes it so)";
    return code === "ENOENT" ? "there is no such file" : String(code ?? error);
  }
}
