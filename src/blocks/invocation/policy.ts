/** A call to an app or endpoint under its policy: what is sent again, and what an answer means to the policy. */
import { collectBody, type MeshRequest, type MeshResponse } from "../../../mesh/index.ts";
import { ApiError } from "../../api/errors.ts";
import { anyFailure, type Failure, ignoredFailure, type Policy } from "../../resiliency/policy.ts";
import { PolicyStop } from "../../resiliency/stop.ts";
import { breakerRefused, invokeFailed, timedOut } from "./errors.ts";

/** How a call came in. */
export type InvokeCall = {
  readonly signal: AbortSignal;
  /** Protocol of the caller: answers of the app mean different things to its policy. */
  readonly protocol: "http" | "grpc";
  /** False for a body of unknown length: it is never sent again. */
  readonly repeatable: boolean;
};

/** Longest body that is kept in memory to be sent again, bytes. */
const maxKeptBytes = 64 * 1024 * 1024;

/** Makes the call as the policy says. Rejects with ApiError when the policy ends it. */
export async function invokeUnder(
  policy: Policy,
  id: string,
  request: MeshRequest,
  call: InvokeCall,
  send: (request: MeshRequest, call: InvokeCall) => Promise<MeshResponse>,
): Promise<MeshResponse> {
  const kept = policy.retries && call.repeatable ? await keepBody(request) : request;
  const repeatable = call.repeatable && kept.body instanceof Uint8Array;
  try {
    return await policy.run((signal) => send(kept, { ...call, signal }), {
      signal: call.signal,
      repeatable,
      judge: call.protocol === "http" ? judgeOverHttp : judgeOverGrpc,
      judgeError,
      discard,
    });
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (!(error instanceof PolicyStop)) throw invokeFailed(id, String(error), error);
    if (!(kept.body instanceof Uint8Array)) kept.body.cancel(error);
    throw (error.reason === "timeout" ? timedOut : breakerRefused)(id, error.message);
  }
}

/** The request with its body whole. One that fails or is too long stays as it is, for whoever reads it to say so. */
async function keepBody(request: MeshRequest): Promise<MeshRequest> {
  const { body } = request;
  if (body instanceof Uint8Array || body.length === undefined || body.length > maxKeptBytes) return request;
  try {
    return { ...request, body: await collectBody(body, body.length) };
  } catch {
    return request;
  }
}

/** The status of a gRPC app is an answer like any other: neither retried nor counted. 101 begins a tunnel. */
function judgeOverHttp({ grpc, status }: MeshResponse): Failure | undefined {
  const fine = grpc !== undefined || status === 101 || (status >= 200 && status <= 399);
  return fine ? undefined : { kind: "http", code: status };
}

/** A gRPC caller gets an error for all but success; no list of codes applies to it. */
function judgeOverGrpc({ grpc, status }: MeshResponse): Failure | undefined {
  const fine = grpc === undefined ? status >= 200 && status <= 299 : grpc.code === 0;
  return fine ? undefined : anyFailure;
}

/** An app that does not let this caller in is well, and says the same each time. */
function judgeError(error: unknown): Failure {
  return error instanceof ApiError && error.httpStatus === 403 ? ignoredFailure : anyFailure;
}

function discard({ body }: MeshResponse): void {
  if (!(body instanceof Uint8Array)) body.cancel(new Error("the request is sent again"));
}
