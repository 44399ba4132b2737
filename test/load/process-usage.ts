/** CPU time and memory of another process, from /proc (Linux). */
import { readFileSync } from "node:fs";

/** Clock ticks per second of /proc; fixed at 100 on Linux. */
const ticksPerSecond = 100;

/** User and system time used so far, ms. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name may hold spaces and brackets, so the fields are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond;
}

/** Resident memory now, MB (10^6 bytes). */
export function residentMb(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return (Number(line?.[1] ?? 0) * 1024) / 1e6;
}
