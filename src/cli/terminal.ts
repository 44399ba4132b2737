/**
 * What the user sees: status lines of the CLI, and the lines of app and sidecar told apart. Colours and symbols only
 * on a terminal; files and pipes get plain text.
 */
import { createColors } from "picocolors";
import type { LineSink } from "./lines.ts";

/** An output of this process. */
export type Output = NodeJS.WritableStream & { readonly isTTY?: boolean };

export type Terminal = {
  /** Plain text for stdout, as the result of a command. */
  print(text: string): void;
  info(text: string): void;
  success(text: string): void;
  /** Warnings and failures go to stderr. */
  warn(text: string): void;
  fail(text: string): void;
  bold(text: string): string;
  readonly appLine: LineSink;
  readonly sidecarLine: LineSink;
};

const appPrefix = "== APP == ";

/** `env` is asked for NO_COLOR only. */
export function openTerminal(out: Output, err: Output, env: NodeJS.ProcessEnv): Terminal {
  const coloured = (output: Output): boolean => output.isTTY === true && !env["NO_COLOR"];
  const colors = createColors(coloured(out));
  // A reader that has gone (`weft run | head`) must not end us before we have cleaned up.
  for (const output of [out, err]) output.on("error", () => {});
  const status = (output: Output, symbol: string, plain: string) => (text: string) => {
    output.write(`${output.isTTY === true ? `${symbol}  ` : plain}${text}\n`);
  };
  return {
    print: (text) => void out.write(`${text}\n`),
    info: status(out, "ℹ️", ""),
    success: status(out, "✅", ""),
    warn: status(err, "⚠️", "weft: "),
    fail: status(err, "❌", "weft: "),
    bold: colors.bold,
    appLine: (line) => write(out, `${colors.cyan(appPrefix)}${line}\n`),
    sidecarLine: (line) => write(out, `${colors.dim(line)}\n`),
  };
}

/** Resolves when a reader that is behind has caught up, or has gone. */
function write(out: Output, text: string): Promise<void> | undefined {
  if (out.write(text)) return undefined;
  return new Promise((resolve) => {
    const done = (): void => {
      out.off("drain", done).off("close", done).off("error", done);
      resolve();
    };
    out.once("drain", done).once("close", done).once("error", done);
  });
}
