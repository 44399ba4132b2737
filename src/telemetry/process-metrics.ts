/**
 * Process figures in text exposition. Dashboards made for daprd know some of them under the names of Go's runtime, so
 * what the same figure is here stands under those names too.
 */
import { readFileSync, readdirSync } from "node:fs";

/** Empty parts where the system does not tell (no /proc). */
export function processMetrics(): string {
  const { heapUsed, heapTotal, rss } = process.memoryUsage();
  const cpu = process.cpuUsage();
  const startSeconds = (performance.timeOrigin / 1000).toFixed(3);
  const { virtualBytes, threads } = ownStatus();
  return [
    figure("process_cpu_seconds_total", "counter", "CPU time used, seconds.", (cpu.user + cpu.system) / 1e6),
    figure("process_resident_memory_bytes", "gauge", "Resident memory, bytes.", rss),
    figure("process_start_time_seconds", "gauge", "Start of the process, Unix seconds.", startSeconds),
    figure("process_virtual_memory_bytes", "gauge", "Virtual memory, bytes.", virtualBytes),
    figure("process_open_fds", "gauge", "Open file descriptors.", openDescriptors()),
    figure("process_max_fds", "gauge", "File descriptors that may be open.", maxDescriptors()),
    figure("go_goroutines", "gauge", "Handles and requests that the event loop waits for.", activeHandles()),
    figure("go_threads", "gauge", "Threads of the process.", threads),
    figure("go_memstats_alloc_bytes", "gauge", "Heap in use, bytes.", heapUsed),
    figure("go_memstats_heap_alloc_bytes", "gauge", "Heap in use, bytes.", heapUsed),
    figure("go_memstats_heap_inuse_bytes", "gauge", "Heap in use, bytes.", heapUsed),
    figure("go_memstats_heap_sys_bytes", "gauge", "Heap taken from the system, bytes.", heapTotal),
    figure("go_memstats_sys_bytes", "gauge", "Memory taken from the system, bytes.", rss),
  ].join("");
}

function figure(
  name: string,
  type: "gauge" | "counter",
  help: string,
  value: number | string | undefined,
): string {
  return value === undefined ? "" : `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name} ${value}\n`;
}

function activeHandles(): number {
  return process.getActiveResourcesInfo().length;
}

function ownStatus(): { readonly virtualBytes: number | undefined; readonly threads: number | undefined } {
  const status = readText("/proc/self/status") ?? "";
  const kilobytes = /^VmSize:\s+(\d+)/m.exec(status)?.[1];
  const threads = /^Threads:\s+(\d+)/m.exec(status)?.[1];
  return {
    virtualBytes: kilobytes === undefined ? undefined : Number(kilobytes) * 1024,
    threads: threads === undefined ? undefined : Number(threads),
  };
}

function openDescriptors(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}

function maxDescriptors(): number | undefined {
  const limit = /^Max open files\s+(\d+)/m.exec(readText("/proc/self/limits") ?? "")?.[1];
  return limit === undefined ? undefined : Number(limit);
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
