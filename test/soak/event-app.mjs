// A subscriber that may be killed at any moment: what it has handled stands in a file before it answers. Arguments:
// port, file, and every how manyth event fails when it first comes here. Lines are `<key> <number>`; several apps may
// share the file, and each line is one write, so that the file tells in which order events were handled.
import { openSync, writeSync } from "node:fs";
import { createServer } from "node:http";

const [port, path, failEvery] = process.argv.slice(2);
const file = openSync(path, "a");
const failed = new Set();

createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    if (request.url !== "/event") return response.writeHead(404).end();
    const { key, n } = JSON.parse(Buffer.concat(chunks).toString()).data;
    const name = `${key} ${n}`;
    if (n % Number(failEvery) === 0 && !failed.has(name)) {
      failed.add(name);
      return response.writeHead(500).end();
    }
    writeSync(file, `${name}\n`);
    response.end();
  });
}).listen(Number(port), "127.0.0.1");
