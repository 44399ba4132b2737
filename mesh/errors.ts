/**
 * Every way in which the mesh can fail, as one error class with a closed list of codes.
 * Codes travel in error frames (see README.md, "Errors"), so a new code is a protocol change.
 */

/**
 * - `no-responders`: no instance of the app is subscribed; the request was not delivered.
 * - `timeout`: the deadline passed, or the peer stopped showing progress; the outcome is unknown.
 * - `cancelled`: the caller gave up.
 * - `disconnected`: NATS is away and did not come back before the deadline; the request was not sent.
 * - `interrupted`: a connection broke or the peer vanished after the request was sent; the outcome is unknown.
 * - `too-large`: the payload does not fit in NATS' `max_payload`.
 * - `conflict`: a revision check failed; nothing was written.
 * - `peer`: the serving side failed before the app answered, or NATS does not permit the request; `message` says why.
 * - `denied`: the serving side does not let this caller do this; the app was not asked.
 * - `protocol`: a frame of an unknown version or shape.
 * - `storage`: JetStream refused the operation; `message` names its own code and text.
 * - `closed`: this mesh was closed.
 */
export type MeshErrorCode =
  | "no-responders"
  | "timeout"
  | "cancelled"
  | "disconnected"
  | "interrupted"
  | "too-large"
  | "conflict"
  | "peer"
  | "denied"
  | "protocol"
  | "storage"
  | "closed";

export class MeshError extends Error {
  readonly code: MeshErrorCode;
  /** For `conflict` in a batch: position of the first failing operation, when it could be found. */
  readonly index: number | undefined;

  constructor(code: MeshErrorCode, message: string, options: { cause?: unknown; index?: number } = {}) {
    super(message, { cause: options.cause });
    this.name = "MeshError";
    this.code = code;
    this.index = options.index;
  }
}

/** True when `error` is a MeshError with one of the given codes. */
export function isMeshError(error: unknown, ...codes: MeshErrorCode[]): error is MeshError {
  return error instanceof MeshError && (codes.length === 0 || codes.includes(error.code));
}

/** The error of an operation whose caller gave up. A MeshError given as the reason of the abort is passed on. */
export function cancelledBy(signal: AbortSignal): MeshError {
  const reason: unknown = signal.reason;
  if (reason instanceof MeshError) return reason;
  const text = reason instanceof Error && reason.message !== "" ? reason.message : "the caller gave up";
  return new MeshError("cancelled", text, { cause: reason });
}

/** Words of anything that was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Codes that a serving side may send; the others speak of the own side or promise that nothing was delivered. */
const peerCodes = new Set<string>([
  "timeout",
  "cancelled",
  "interrupted",
  "too-large",
  "peer",
  "denied",
  "protocol",
  "closed",
]);

/** Code of an error that came over the wire; unknown ones are `peer`. */
export function codeOfPeer(code: string): MeshErrorCode {
  return peerCodes.has(code) ? (code as MeshErrorCode) : "peer";
}
