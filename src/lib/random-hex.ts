/** Random identifiers as hex text, many for one call of the system's generator. */
import { randomFillSync } from "node:crypto";

const poolBytes = 8 * 1024;

export class RandomHex {
  readonly #pool = Buffer.allocUnsafeSlow(poolBytes);
  #at = poolBytes;

  /** `2 * bytes` hex digits; `bytes` up to 8 KiB. */
  take(bytes: number): string {
    if (this.#at + bytes > poolBytes) {
      randomFillSync(this.#pool);
      this.#at = 0;
    }
    const text = this.#pool.toString("hex", this.#at, this.#at + bytes);
    this.#at += bytes;
    return text;
  }
}
