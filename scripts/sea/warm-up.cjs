// Build step: runs the bundle as a sidecar for a moment, gives it a few calls, then writes the code that V8 compiled
// on the way. Arguments: bundle, file to write, folder for the component files, and the sidecar's arguments.
const { mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { request } = require("node:http");
const { createServer } = require("node:net");
const { join } = require("node:path");
const { Script } = require("node:vm");

const [bundle, output, folder, ...args] = process.argv.slice(2);
const attempts = 100;
const rounds = 5;
const component = (name, type) =>
  `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: ${name}}\nspec: {type: ${type}, version: v1}\n`;

function freePort() {
  return new Promise((fulfil, reject) => {
    const server = createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => fulfil(port));
    });
  });
}

/** Resolves to the status, to 0 when nobody answers. */
function call(port, method, path, body) {
  return new Promise((fulfil) => {
    const headers = { "content-type": "application/json" };
    const sent = request({ host: "127.0.0.1", port, method, path, headers }, (answer) => {
      answer.resume().on("end", () => fulfil(answer.statusCode));
    });
    sent.on("error", () => fulfil(0)).end(body);
  });
}

async function useSidecar(port) {
  for (let attempt = 0; (await call(port, "GET", "/v1.0/metadata")) !== 200; attempt++) {
    if (attempt === attempts) throw new Error("the sidecar of the warm-up does not answer");
    await new Promise((fulfil) => setTimeout(fulfil, 50));
  }
  for (let round = 0; round < rounds; round++) {
    await call(port, "POST", "/v1.0/state/store", JSON.stringify([{ key: "a", value: round }]));
    await call(port, "GET", "/v1.0/state/store/a");
    await call(port, "POST", "/v1.0/publish/events/topic", JSON.stringify({ round }));
  }
}

async function main() {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "store.yaml"), component("store", "state.in-memory"));
  writeFileSync(join(folder, "events.yaml"), component("events", "pubsub.in-memory"));
  const port = await freePort();
  process.argv = [
    process.execPath,
    "weftd",
    ...args,
    "--dapr-http-port",
    port,
    "--resources-path",
    folder,
  ].map(String);
  const script = new Script(readFileSync(bundle, "latin1"), { filename: "weft.js" });
  script.runInThisContext()(exports, require, module, __filename, __dirname);
  await useSidecar(port);
  writeFileSync(output, script.createCachedData());
  // Without the sidecar's drain: nobody depends on it.
  process.exit(0);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
