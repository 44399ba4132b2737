/** Vitest set-up (`setupFiles`): after a failed test, print the logs of every process and server it had started. */
import { afterEach } from "vitest";
import { collectLogs, forgetDisposed } from "./cleanup.ts";

afterEach(({ task }) => {
  if (task.result?.state === "fail") process.stderr.write(`\nlogs of "${task.name}":\n${collectLogs()}\n`);
  forgetDisposed();
});
