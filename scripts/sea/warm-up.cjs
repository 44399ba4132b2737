// Build step: runs the bundle for a while as a sidecar would run, then writes the code that V8 compiled on the way.
// Arguments: bundle, file to write, time to run in ms, then the arguments of the sidecar.
const { readFileSync, writeFileSync } = require("node:fs");
const { Script } = require("node:vm");

const [bundle, output, runMs, ...args] = process.argv.slice(2);
process.argv = [process.execPath, "weftd", ...args];
const script = new Script(readFileSync(bundle, "latin1"), { filename: "weft.js" });
const write = () => writeFileSync(output, script.createCachedData());

process.once("exit", write);
script.runInThisContext()(exports, require, module, __filename, __dirname);
// process.exit itself, because the sidecar is still serving and need not drain.
setTimeout(() => process.exit(0), Number(runMs));
