// The yardstick of the bench: the least that a node:http server can do with a body. Port by argument.
import { createServer } from "node:http";

createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    response.writeHead(200, { "content-type": "text/plain", "content-length": body.length });
    response.end(body);
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
