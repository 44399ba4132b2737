// Main script of the executable: runs the bundle from the executable's assets with the compiled code that the build
// took after a warm-up, which starts faster than what Node's own `useCodeCache` keeps (code compiled but never run).
const { getRawAsset } = require("node:sea");
const { Script } = require("node:vm");

const source = Buffer.from(getRawAsset("weft.js")).latin1Slice();
const cachedData = Buffer.from(getRawAsset("weft.cache"));
const script = new Script(source, { filename: "weft.js", cachedData });
script.runInThisContext()(exports, require, module, __filename, __dirname);
