/**
 * The last safety net: a small shell beside the CLI that ends what the CLI started when the CLI itself is killed
 * (kill -9, out of memory). It notices by the end of its input and knows process groups by their leader's id.
 */
import { spawn } from "node:child_process";

// Reads "+ pid" and "- pid". At the end of input: TERM to every group left, after 6 s KILL.
const script = `
live=
while read -r op pid; do
  if [ "$op" = + ]; then live="$live $pid"; continue; fi
  kept=
  for p in $live; do [ "$p" = "$pid" ] || kept="$kept $p"; done
  live=$kept
done
[ -n "$live" ] || exit 0
for p in $live; do kill -s TERM -- "-$p" 2>/dev/null; done
for second in 1 2 3 4 5 6; do
  left=
  for p in $live; do kill -s 0 -- "-$p" 2>/dev/null && left=1; done
  [ -n "$left" ] || exit 0
  sleep 1
done
for p in $live; do kill -s KILL -- "-$p" 2>/dev/null; done
`;

export type Guard = {
  /** From now on the group that `pid` leads is ended when this process is gone. */
  add(pid: number): void;
  /** The group has ended; its id may belong to somebody else soon. */
  remove(pid: number): void;
};

/** Starts the guard. Where there is no shell, the CLI works without it. */
export function startGuard(): Guard {
  const child = spawn("/bin/sh", ["-c", script, "weft-guard", String(process.pid)], {
    stdio: ["pipe", "ignore", "ignore"],
    // A group of its own, so that a Ctrl-C at the terminal does not end it first.
    detached: true,
    env: { PATH: "/usr/bin:/bin" },
  });
  child.on("error", () => {});
  child.unref();
  const input = child.stdin;
  input.on("error", () => {});
  // A pipe to a child keeps this process alive unless it is told not to.
  if ("unref" in input && typeof input.unref === "function") input.unref();
  const tell = (line: string): void => {
    if (input.writable) input.write(line);
  };
  return { add: (pid) => tell(`+ ${pid}\n`), remove: (pid) => tell(`- ${pid}\n`) };
}
