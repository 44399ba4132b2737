// Run by kit.test.ts, which kills it: starts a process and a folder and never disposes of them.
import { nodeBinary, startProcess, tempDir } from "../../kit/index.ts";

const folder = tempDir("left");
const child = await startProcess({
  name: "left",
  command: nodeBinary(),
  args: ["-e", "setInterval(() => {}, 1000)"],
});
process.stdout.write(`pid ${child.pid} folder ${folder.path}\n`);
setInterval(() => {}, 1000);
