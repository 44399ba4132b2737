// Main script of the executable: runs the bundle from the executable's assets with the compiled code that the build
// took after a warm-up, which starts faster than what Node's own `useCodeCache` keeps (code compiled but never run).
const { getRawAsset } = require("node:sea");
const { isBuiltin } = require("node:module");
const { Script } = require("node:vm");

const packages = new Map();
const source = Buffer.from(getRawAsset("weft.js")).latin1Slice();
const cachedData = Buffer.from(getRawAsset("weft.cache"));
const script = new Script(source, { filename: "weft.js", cachedData });
script.runInThisContext()(exports, requireOrPackage, module, __filename, __dirname);

/** Built-in modules, and client packages of components, which lie in assets of their own until one is wanted. */
function requireOrPackage(name) {
  if (isBuiltin(name)) return require(name);
  const known = packages.get(name);
  if (known !== undefined) return known.exports;
  const text = Buffer.from(packageAsset(name)).toString();
  const made = { exports: {} };
  packages.set(name, made);
  new Script(text, { filename: `${name}.js` }).runInThisContext()(
    made.exports,
    requireOrPackage,
    made,
    __filename,
    __dirname,
  );
  return made.exports;
}

function packageAsset(name) {
  try {
    return getRawAsset(`packages/${name}`);
  } catch (cause) {
    // What optional dependencies of packages look for.
    throw Object.assign(new Error(`Cannot find module '${name}'`, { cause }), { code: "MODULE_NOT_FOUND" });
  }
}
