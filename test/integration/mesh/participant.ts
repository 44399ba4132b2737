/**
 * A participant in a process of its own, to be killed or paused:
 *   participant.ts <url> serve <app> <delay ms>                   answers every call with its process id, after a while
 *   participant.ts <url> subscribe <group> <topic> <ack wait ms> <delay ms>   handles events, one line each
 *   participant.ts <url> swallow <app>                           reads the body of every call, without end
 *   participant.ts <url> ask <app>                               calls the app once
 *   participant.ts <url> drink <app>                             calls the app and reads its answer, without end
 * Says "ready" when it has begun. SIGTERM drains and ends it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { joinMesh } from "../../../mesh/index.ts";

const [url = "", role = "", ...args] = process.argv.slice(2);
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const app = role === "serve" || role === "swallow" ? (args[0] ?? "") : "other";
const mesh = joinMesh({
  namespace: "default",
  app,
  natsUrls: [url],
  log: (level, text) => say(`# ${level} ${text}`),
});
await mesh.ready();

let leave: () => Promise<void>;
if (role === "serve") {
  const delayMs = Number(args[1]);
  const served = await mesh.serve(async (request, _caller, signal) => {
    say(`begun ${request.path}`);
    await sleep(delayMs, undefined, { signal });
    return { status: 200, headers: [], body: Buffer.from(String(process.pid)) };
  });
  leave = () => served.drain(5_000);
} else if (role === "swallow") {
  const served = await mesh.serve(async ({ body }) => {
    let size = 0;
    for await (const piece of body as AsyncIterable<Uint8Array>) size += piece.length;
    return { status: 200, headers: [], body: Buffer.from(String(size)) };
  });
  leave = () => served.drain(5_000);
} else if (role === "drink" || role === "ask") {
  const options = { app: args[0] ?? "", namespace: "default", timeoutMs: 0 };
  const request = { verb: "GET", path: "/", query: "", headers: [], body: new Uint8Array(0) };
  const call = mesh.call(request, options);
  if (role === "drink") {
    const { body } = await call;
    say("drinking");
    void (async () => {
      for await (const piece of body as AsyncIterable<Uint8Array>) void piece;
    })();
  }
  leave = () => Promise.resolve();
} else {
  const [group = "", topic = "", ackWait, delay] = args;
  const topics = await mesh.topics({ name: ["default", "pubsub"], maxAgeMs: 3_600_000, maxBytes: -1 });
  const options = { topic, group, deliver: "all", ackWaitMs: Number(ackWait), concurrency: 8 } as const;
  const subscription = await topics.subscribe(
    { ...options, backoffMs: [20], maxDeliver: -1 },
    async (message) => {
      say(`begun ${Buffer.from(message.data).toString()} ${message.deliveries}`);
      await sleep(Number(delay));
      say(`handled ${Buffer.from(message.data).toString()} ${message.deliveries}`);
    },
  );
  leave = () => subscription.stop(5_000);
}

process.once("SIGTERM", () => {
  void (async () => {
    await leave();
    await mesh.close();
    process.exit(0);
  })();
});
say("ready");
