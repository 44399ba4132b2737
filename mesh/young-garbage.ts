/**
 * Lets go of the memory of chunks that have passed. It lies outside V8's heap, where V8 sees no hurry before 64 MB
 * wait, and then collects in full; a collection of the young generation in time costs a hundredth of that.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of chunks between two collections. */
const everyBytes = 8 * 1024 * 1024;

type Collect = (options: { type: "minor" }) => void;

export class YoungGarbage {
  #bytes = 0;
  #collect: Collect | undefined;

  /** Chunks of so many bytes were sent or received. */
  passed(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < everyBytes) return;
    this.#bytes = 0;
    this.#collect ??= collector();
    this.#collect({ type: "minor" });
  }
}

/** The only way to V8's collector without a flag at the start of the process. */
function collector(): Collect {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as Collect;
  setFlagsFromString("--no-expose-gc");
  return collect;
}
