/** Process figures that stock Prometheus dashboards read, in text exposition. */
import { readFileSync, readdirSync } from "node:fs";

/** Empty parts where the system does not tell (no /proc). */
export function processMetrics(): string {
  const { heapUsed, rss } = process.memoryUsage();
  const cpu = process.cpuUsage();
  const startSeconds = (performance.timeOrigin / 1000).toFixed(3);
  return [
    gauge("process_cpu_seconds_total", "counter", "CPU time used, seconds.", (cpu.user + cpu.system) / 1e6),
    gauge("process_resident_memory_bytes", "gauge", "Resident memory, bytes.", rss),
    gauge("process_start_time_seconds", "gauge", "Start of the process, Unix seconds.", startSeconds),
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory, bytes.", virtualBytes()),
    gauge("process_open_fds", "gauge", "Open file descriptors.", openDescriptors()),
    // Dashboards made for daprd know the heap under Go's name.
    gauge("go_memstats_alloc_bytes", "gauge", "Heap in use, bytes.", heapUsed),
  ].join("");
}

function gauge(
  name: string,
  type: "gauge" | "counter",
  help: string,
  value: number | string | undefined,
): string {
  return value === undefined ? "" : `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name} ${value}\n`;
}

function virtualBytes(): number | undefined {
  try {
    const kilobytes = /^VmSize:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch {
    return undefined;
  }
}

function openDescriptors(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}
