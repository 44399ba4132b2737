/** What outcomes of publishing and delivering mean to a Resiliency policy of the component. */
import { isMeshError } from "../../../mesh/index.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { httpFromCode } from "../../api/status.ts";
import { type Failure, finalFailure, type Policy } from "../../resiliency/policy.ts";
import { type Answer, retry } from "./answer.ts";
import { RequestRefused } from "./port.ts";

/** By which protocol a publish came in: its policy matches codes of that protocol. What the sidecar does is `grpc`. */
export type Via = "http" | "grpc";

/** One delivery, or several under the policy of the component. A policy that ends it makes the answer a retry. */
export async function deliverUnder(
  policy: Policy | undefined,
  signal: AbortSignal,
  attempt: (signal: AbortSignal) => Promise<Answer>,
): Promise<Answer> {
  if (policy === undefined) return attempt(signal);
  try {
    return await policy.run(attempt, { signal, judge: failureOf });
  } catch (error) {
    return retry(error instanceof Error ? error : new Error(String(error)));
  }
}

/** A dropped event is done with. */
export function failureOf(answer: Answer): Failure | undefined {
  return answer.kind === "retry" ? answer.failure : undefined;
}

/** Failures of several events as one: a list of codes decides only when all of them are codes. */
export function failureOfAll(answers: readonly Answer[]): Failure | undefined {
  const failures = answers.map(failureOf).filter((failure) => failure !== undefined);
  return failures.find(({ kind }) => kind === "any") ?? failures[0];
}

/** What a broker's refusal of an event means. */
export const judgePublish: Readonly<Record<Via, (error: unknown) => Failure>> = {
  http: (error) => refusal(error, (code) => ({ kind: "http", code: httpFromCode(code) })),
  grpc: (error) => refusal(error, (code) => ({ kind: "grpc", code })),
};

function refusal(error: unknown, of: (code: number) => Failure): Failure {
  // The same bytes never fit, and the same wishes stay refused.
  if (isMeshError(error, "too-large") || error instanceof RequestRefused) return finalFailure;
  if (error instanceof GrpcStatusError) return of(error.code);
  return of(isMeshError(error, "closed") ? GrpcCode.FailedPrecondition : GrpcCode.Unavailable);
}
