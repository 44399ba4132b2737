// A gRPC app for the bench: answers every unary call with what it got. Port by argument.
import { createServer } from "node:http2";

createServer({ settings: { maxConcurrentStreams: 10_000 } })
  .on("stream", (stream) => {
    const chunks = [];
    stream.on("error", () => {});
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.concat(chunks));
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
