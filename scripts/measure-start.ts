// How long a program takes from start to end in an empty environment, and how much memory it had.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

const runs = 7;

/**
 * Runs `file` some times and puts the fastest run and its largest seen memory in words. Rejects with the output when
 * a run fails.
 */
export async function measureStart(file: string, args: readonly string[]): Promise<string> {
  let fastestMs = Infinity;
  let peakMb = 0;
  let said = "";
  for (let run = 0; run < runs; run++) {
    const result = await once(file, args);
    fastestMs = Math.min(fastestMs, result.ms);
    peakMb = Math.max(peakMb, result.peakMb);
    said = result.said;
  }
  const name = `${args.join(" ")} in an empty environment`;
  return `${name}: ${said} in ${fastestMs.toFixed(0)} ms (best of ${runs}), ${peakMb.toFixed(0)} MB resident`;
}

function once(file: string, args: readonly string[]): Promise<{ ms: number; peakMb: number; said: string }> {
  const started = performance.now();
  const child = spawn(file, args, { env: {}, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let peakMb = 0;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      peakMb = Math.max(peakMb, residentMb(child.pid));
    });
  }
  return new Promise((fulfil, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      const ms = performance.now() - started;
      if (code === 0) fulfil({ ms, peakMb, said: output.trim().split("\n")[0] ?? "" });
      else reject(new Error(`${file} ${args.join(" ")} ended with ${code}:\n${output}`));
    });
  });
}

/** Largest resident size so far; 0 when the process is already gone. */
function residentMb(pid: number | undefined): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return Number(line?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}
