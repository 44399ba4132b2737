// Reads what `weft` with these arguments prints with rests, as who pages through it, and prints the last line.
import { spawn } from "node:child_process";

const weft = spawn(process.execPath, process.argv.slice(2), { stdio: ["ignore", "pipe", "inherit"] });
const pieceBytes = 128 * 1024;
const restMs = 400;
let text = "";
let taken = 0;
weft.stdout.on("data", (data) => {
  text = (text + data).slice(-1_000);
  taken += data.length;
  if (taken < pieceBytes) return;
  taken = 0;
  weft.stdout.pause();
  setTimeout(() => weft.stdout.resume(), restMs);
});
weft.on("close", (code) => console.log(`exit ${code}, ${text.match(/== APP == .*/g)?.at(-1)}`));
