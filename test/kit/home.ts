/** A WEFT_HOME of its own for sidecars that find NATS by themselves; the server they start ends with it. */
import { systemClock } from "../../mesh/clock.ts";
import { sharedStatus, stopShared } from "../../mesh/server/index.ts";
import type { SharedStatus } from "../../mesh/server/index.ts";
import { guardProcess } from "./cleanup.ts";
import { tempDir } from "./temp-dir.ts";
import type { TempDir } from "./temp-dir.ts";

export type Home = TempDir & {
  /** What is known of the nats-server that sidecars of this home share. */
  sharedServer(): Promise<SharedStatus>;
};

/** An empty home, to be given to several sidecars as `home`. */
export function tempHome(): Home {
  const folder = tempDir("home");
  return {
    ...folder,
    sharedServer: () => sharedStatus({ home: folder.path, env: {}, clock: systemClock }),
    async [Symbol.asyncDispose]() {
      await stopSharedServer(folder.path);
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Ends the shared server of a home, if sidecars have started one; it outlives them on purpose. */
export async function stopSharedServer(home: string): Promise<void> {
  await stopShared({ home, env: {}, clock: systemClock });
}

/** Sees to it that the shared server of a home goes with this process, also when nothing is disposed of. */
export async function guardSharedServer(home: string): Promise<void> {
  const { pid } = await sharedStatus({ home, env: {}, clock: systemClock });
  if (pid !== undefined) guardProcess(pid);
}
