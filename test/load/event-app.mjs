// The app of the events bench: takes events of so many topics and counts them. Port, topics and what their names begin
// with by argument.
// `GET /after/<n>` is answered once n events have come.
import { createServer } from "node:http";

const [port, topics] = process.argv.slice(2, 4).map(Number);
const [prefix] = process.argv.slice(4);
const subscriptions = Array.from({ length: topics }, (_, at) => ({
  pubsubname: "pubsub",
  topic: `${prefix}.${at}`,
  route: "/event",
}));
let count = 0;
const waiting = new Map();

createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    if (request.url === "/event") {
      response.writeHead(200, { "content-length": 0 }).end();
      waiting.get(++count)?.();
      return;
    }
    if (request.url === "/dapr/subscribe") {
      const body = JSON.stringify(subscriptions);
      response.writeHead(200, { "content-type": "application/json" }).end(body);
      return;
    }
    if (!request.url.startsWith("/after/")) {
      response.writeHead(404).end();
      return;
    }
    const wanted = Number(request.url.split("/")[2]);
    const answer = () => response.end();
    if (count >= wanted) answer();
    else waiting.set(wanted, answer);
  });
}).listen(port, "127.0.0.1");
