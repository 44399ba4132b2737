/** Which nats-server the tests run: what the mesh itself would find on this machine or fetch, kept below .cache. */
import { join } from "node:path";
import { systemClock } from "../../mesh/clock.ts";
import { findBinary, openHome } from "../../mesh/server/index.ts";
import { withFileLock } from "./file-lock.ts";
import { checkout } from "./paths.ts";

const path = ((): (() => Promise<string>) => {
  let found: Promise<string> | undefined;
  return () => (found ??= find());
})();

/** Path of a nats-server program new enough for Weft. The first call on a machine without one fetches it. */
export function natsServerBinary(): Promise<string> {
  return path();
}

function find(): Promise<string> {
  const cache = join(checkout, ".cache");
  return withFileLock(join(cache, "nats-server.lock"), async () => {
    const home = openHome({ home: join(cache, "weft-home"), env: process.env });
    const progress = (line: string): void => void process.stderr.write(`test kit: ${line}\n`);
    return (await findBinary({ home, env: process.env, progress, clock: systemClock })).path;
  });
}
