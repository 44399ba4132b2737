// The least that a collector can do: takes every body and says so. Port by argument.
import { createServer } from "node:http";

createServer((request, response) => {
  request.resume();
  request.on("end", () => response.writeHead(200, { "content-length": 0 }).end());
}).listen(Number(process.argv[2]), "127.0.0.1");
