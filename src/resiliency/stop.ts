/** How a policy ends a call by itself, as one error. Its texts are what clients of Dapr look for. */

const texts = {
  /** An attempt took longer than the timeout. */
  timeout: "context deadline exceeded",
  /** The circuit breaker is open: the call was not made. */
  open: "circuit breaker is open",
  /** The circuit breaker is half-open and its trial calls are under way: the call was not made. */
  busy: "too many requests",
} as const;

export type StopReason = keyof typeof texts;

export class PolicyStop extends Error {
  readonly reason: StopReason;

  constructor(reason: StopReason) {
    super(texts[reason]);
    this.name = "PolicyStop";
    this.reason = reason;
  }
}
