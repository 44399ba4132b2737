/**
 * A guard against a fault of node 24: what a closed HTTP/2 stream had not sent yet stays in the account of its
 * session's memory. When the account is full (`maxSessionMemory`), node refuses every stream of the session with
 * ENHANCE_YOUR_CALM for ever. So a session with too much of it is replaced before.
 */
import type { Http2Session, Http2Stream } from "node:http2";

/** A quarter of the session memory that both our sides allow, bytes. */
export const maxUnsentBytes = 128 * 1024 * 1024;

/** Counts what streams leave unsent, by session. */
export class UnsentBytes {
  readonly #bySession = new WeakMap<Http2Session, number>();

  /** To be called when a stream has closed. True once, when its session should take no further streams. */
  isTooMuch(session: Http2Session, stream: Http2Stream): boolean {
    const { writableLength } = stream;
    if (writableLength === 0) return false;
    const before = this.#bySession.get(session) ?? 0;
    this.#bySession.set(session, before + writableLength);
    return before <= maxUnsentBytes && before + writableLength > maxUnsentBytes;
  }
}
