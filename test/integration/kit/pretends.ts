// Run by kit.test.ts in place of a sidecar: tells its arguments, gets healthy after a while, ends as it is told.
import { createServer } from "node:http";

const flag = (name: string): string => {
  const found = process.argv.find((it) => it.startsWith(`--${name}=`));
  return found?.slice(name.length + 3) ?? "";
};

process.stdout.write(`${JSON.stringify(process.argv.slice(2))}\n${JSON.stringify(process.env)}\n`);
if (flag("app-id") === "broken") {
  process.stderr.write("this sidecar cannot start\n");
  process.exit(3);
}
let asked = 0;
const server = createServer((request, response) => {
  if (!(request.url ?? "").startsWith("/v1.0/healthz")) return response.writeHead(200).end(request.url);
  asked++;
  return response.writeHead(asked > 3 && flag("app-id") !== "sick" ? 204 : 500).end();
});
server.listen(Number(flag("dapr-http-port")), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
