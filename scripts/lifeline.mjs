// Preloaded by bootstrap.mjs into the script it starts. That script leads a process group of its own, so it would
// survive when its starter is killed outright (kill -9, a CI timeout); this turns that loss into a normal SIGTERM.
import { isMainThread } from "node:worker_threads";

const parent = Number(process.env["WEFT_PARENT_PID"]);
delete process.env["WEFT_PARENT_PID"];

if (isMainThread && parent > 0) {
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    process.kill(process.pid, "SIGTERM");
  }, 500);
  watch.unref();
}
