/**
 * A proxied call to another app under its policy. By default the policy covers the whole call; then a request that may
 * be sent again has one message only. With `dapr-stream` it covers no more than the way to an instance.
 */
import {
  bodyOfBytes,
  BodyQueue,
  type BodyStream,
  isMeshError,
  type MeshRequest,
  type MeshResponse,
} from "../../../mesh/index.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { passingStatus } from "../../api/mesh-status.ts";
import { FrameScan } from "../../lib/grpc-scan.ts";
import { statusCodeOf } from "../../lib/grpc-wire.ts";
import { type Failure, finalFailure, type Policy } from "../../resiliency/policy.ts";
import { PolicyStop } from "../../resiliency/stop.ts";
import { breakerRefused, timedOut } from "./errors.ts";

/** Makes one attempt. `onAccepted` is called when an instance has a request whose body is a stream. */
export type Send = (
  request: MeshRequest,
  signal: AbortSignal,
  onAccepted?: () => void,
) => Promise<MeshResponse>;

export type UnderInit = {
  readonly policy: Policy;
  /** App id as the client wrote it. */
  readonly id: string;
  readonly request: MeshRequest;
  readonly signal: AbortSignal;
  readonly send: Send;
};

/** The policy covers the way to an instance; what the app makes of the call is its own. */
export async function openUnder({ policy, id, request, signal, send }: UnderInit): Promise<MeshResponse> {
  // Only of a stream is it told that it has arrived.
  const body = request.body instanceof Uint8Array ? bodyOfBytes(request.body) : request.body;
  const attempt = async (limit: AbortSignal): Promise<{ readonly answer: Promise<MeshResponse> }> => {
    const opened = Promise.withResolvers<void>();
    const answer = send({ ...request, body }, limit, opened.resolve);
    answer.then(() => opened.resolve(), opened.reject);
    await opened.promise;
    return { answer };
  };
  const judgeError = (error: unknown): Failure =>
    unsent(error) ? codeOf(error) : { ...codeOf(error), kind: "final" };
  // With it, the attempt's signal stays bound to the client's when the attempt is over.
  const discard = ({ answer }: { readonly answer: Promise<MeshResponse> }): void =>
    void answer.then(discardAnswer, () => {});
  try {
    const { answer } = await policy.run(attempt, { signal, judgeError, discard });
    return await answer;
  } catch (error) {
    throw ended(id, error);
  }
}

/** The policy covers the call to its end. */
export function callUnder(init: UnderInit): Promise<MeshResponse> {
  const { policy, id, request, signal, send } = init;
  const over = new AbortController();
  const leave = (): void => over.abort(signal.reason);
  if (signal.aborted) leave();
  else signal.addEventListener("abort", leave, { once: true });
  const early = Promise.withResolvers<MeshResponse>();
  const replay = policy.retries ? new Replay(request.body, (error) => over.abort(error)) : undefined;
  const attempt = async (limit: AbortSignal): Promise<Outcome> => {
    const body = replay === undefined ? request.body : replay.next();
    const response = await send({ ...request, body }, limit);
    if (response.body instanceof Uint8Array) return { response, passed: false };
    const watched = watch(response.body, limit);
    early.resolve({ ...response, body: watched.body });
    return { code: await watched.end, passed: true };
  };
  policy
    .run(attempt, { signal: over.signal, judge, judgeError: codeOf })
    .then(
      (outcome) => {
        if (!outcome.passed) early.resolve(outcome.response);
      },
      (error: unknown) => early.reject(ended(id, over.signal.aborted ? over.signal.reason : error)),
    )
    .finally(() => {
      signal.removeEventListener("abort", leave);
      replay?.close();
    });
  return early.promise;
}

type Outcome =
  | { readonly passed: false; readonly response: MeshResponse }
  | { readonly passed: true; readonly code: number };

/** What the client has begun to get cannot be made undone by another attempt. */
function judge(outcome: Outcome): Failure | undefined {
  if (outcome.passed) return outcome.code === 0 ? undefined : finalFailure;
  const code = outcome.response.grpc?.code ?? GrpcCode.Unknown;
  return code === 0 ? undefined : { kind: "grpc", code };
}

function codeOf(error: unknown): { readonly kind: "grpc"; readonly code: number } {
  return { kind: "grpc", code: passingStatus(error).code };
}

/** Nobody has got the request: its body is as it was. */
function unsent(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return (
    isMeshError(error, "no-responders", "disconnected") || isMeshError(cause, "no-responders", "disconnected")
  );
}

function ended(id: string, error: unknown): Error {
  if (!(error instanceof PolicyStop)) return passingStatus(error);
  return (error.reason === "timeout" ? timedOut : breakerRefused)(id, error.message);
}

function discardAnswer({ body }: MeshResponse): void {
  if (!(body instanceof Uint8Array)) body.cancel(new Error("the call is made again"));
}

/** The same body; `end` is the code that its trailers say. A body that the policy ends says so to its reader. */
function watch(
  body: BodyStream,
  limit: AbortSignal,
): { readonly body: BodyStream; readonly end: Promise<number> } {
  const end = Promise.withResolvers<number>();
  async function* pieces(): AsyncGenerator<Uint8Array, undefined> {
    try {
      yield* body;
      end.resolve(statusCodeOf(body.trailers) ?? GrpcCode.Unknown);
    } catch (error) {
      const { reason } = limit as { readonly reason: unknown };
      const late = reason instanceof PolicyStop;
      const status = late
        ? new GrpcStatusError(GrpcCode.DeadlineExceeded, reason.message)
        : passingStatus(reason instanceof GrpcStatusError ? reason : error);
      end.reject(status);
      throw status;
    } finally {
      end.reject(new GrpcStatusError(GrpcCode.Canceled, "the answer was not read to its end"));
    }
  }
  const watched: BodyStream = {
    length: body.length,
    get trailers() {
      return body.trailers;
    },
    cancel: (reason) => body.cancel(reason),
    onEnd: (listener) => body.onEnd(listener),
    takeReady: (maxBytes) => body.takeReady(maxBytes),
    putBack: (bytes) => body.putBack(bytes),
    [Symbol.asyncIterator]: pieces,
  };
  return { body: watched, end: end.promise };
}

/** A request of one message that can be sent again, also while it is still coming. */
class Replay {
  readonly #whole: Uint8Array | undefined;
  readonly #source: BodyStream | undefined;
  readonly #scan = new FrameScan(Number.POSITIVE_INFINITY);
  readonly #refuse: (error: GrpcStatusError) => void;
  #kept: Uint8Array[] = [];
  #ended = false;
  #failure: Error | undefined;
  #current: BodyQueue | undefined;

  /** `refuse` is called when there is a second message. */
  constructor(body: Uint8Array | BodyStream, refuse: (error: GrpcStatusError) => void) {
    this.#refuse = refuse;
    if (body instanceof Uint8Array) {
      this.#whole = body;
      this.#take(body);
    } else {
      this.#source = body;
      void this.#read(body);
    }
  }

  /** The request from its beginning. */
  next(): Uint8Array | BodyStream {
    if (this.#whole !== undefined) return this.#whole;
    const queue = new BodyQueue();
    for (const piece of this.#kept) queue.push(piece);
    if (this.#failure !== undefined) queue.fail(this.#failure);
    else if (this.#ended) queue.end();
    this.#current = queue;
    return queue;
  }

  /** No further attempt begins. */
  close(): void {
    this.#source?.cancel(new Error("the call is over"));
    this.#kept = [];
  }

  async #read(source: BodyStream): Promise<void> {
    try {
      for await (const piece of source) {
        if (!this.#take(piece)) return;
        this.#current?.push(piece);
      }
      this.#ended = true;
      this.#current?.end();
    } catch (error) {
      this.#failure = error as Error;
      this.#current?.fail(this.#failure);
    }
  }

  /** False when the bytes reach into a second message. */
  #take(piece: Uint8Array): boolean {
    this.#scan.push(piece);
    if (this.#scan.begun > 1) {
      const text = "cannot use resiliency policies with retries on streaming RPCs";
      this.#refuse(new GrpcStatusError(GrpcCode.FailedPrecondition, text));
      return false;
    }
    this.#kept.push(piece);
    return true;
  }
}
