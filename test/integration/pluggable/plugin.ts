/** The Go plug-in of test/compat/go-pluggable as a process on sockets in a folder, and components of it. */
import { expect } from "vitest";
import { eventually, startProcess, type RunningProcess } from "../../kit/index.ts";
import { goProgram } from "../../kit/toolchains.ts";

/** Starts it; resolves when its socket is there. */
export async function startPlugin(socketPath: string): Promise<RunningProcess> {
  const [command, ...first] = await goProgram("go-pluggable");
  const running = await startProcess({ name: "plug-in", command, args: [...first, socketPath] });
  await eventually(() => expect(running.logs()).toMatch(/^serving /m), { timeoutMs: 30_000 });
  return running;
}
