/** Random identifiers as hex text, many for one call of the system's generator. */
import { randomBytes } from "node:crypto";

const poolBytes = 4 * 1024;

export class RandomHex {
  #pool = "";
  #at = 0;

  /** `2 * bytes` hex digits; `bytes` up to 4 KiB. */
  take(bytes: number): string {
    if (this.#at + 2 * bytes > this.#pool.length) {
      this.#pool = randomBytes(poolBytes).toString("hex");
      this.#at = 0;
    }
    const from = this.#at;
    this.#at += 2 * bytes;
    return this.#pool.slice(from, this.#at);
  }
}
