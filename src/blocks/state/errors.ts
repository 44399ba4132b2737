/**
 * Every error the state API answers: code, HTTP status, gRPC code, text and details as Dapr clients know them.
 * An error without `details` has the simple HTTP form; over gRPC it carries one ErrorInfo with its code.
 */
import {
  ApiError,
  badRequest,
  type ErrorDetail,
  errorInfo,
  GrpcCode,
  help,
  resourceInfo,
  simpleError,
} from "../../api/errors.ts";
import { EtagInvalid, EtagMismatch, StoreError } from "./port.ts";
import { textOf } from "../../lib/thrown.ts";

/** No state store is loaded at all. */
export function storesNotConfigured(store: string, appId: string): ApiError {
  return new ApiError({
    code: "ERR_STATE_STORE_NOT_CONFIGURED",
    httpStatus: 500,
    grpcCode: GrpcCode.FailedPrecondition,
    message: `state store ${store} is not configured`,
    details: [errorInfo("DAPR_STATE_NOT_CONFIGURED", { appID: appId })],
    grpcDetails: [errorInfo("DAPR_STATE_NOT_CONFIGURED")],
  });
}

/** There are state stores, but none of this name. */
export function storeNotFound(store: string, appId: string): ApiError {
  return new ApiError({
    code: "ERR_STATE_STORE_NOT_FOUND",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: `state store ${store} is not found`,
    details: [errorInfo("DAPR_STATE_NOT_FOUND", { appID: appId })],
    grpcDetails: [errorInfo("DAPR_STATE_NOT_FOUND")],
  });
}

/** The same two errors without the app's id in the details, as the query call has them over HTTP. */
export function withoutAppId(error: ApiError): ApiError {
  const { code, httpStatus, grpcCode, message, grpcDetails } = error;
  return new ApiError({ code, httpStatus, grpcCode, message, details: grpcDetails });
}

/** Text of a key or key prefix that holds the separator. */
export function illegalKeyText(key: string): string {
  return `input key/keyPrefix '${key}' can't contain '||'`;
}

/** A user's key holds `||`. The HTTP form of a transaction does not name the field. */
export function illegalKey(store: string, key: string, inTransaction: boolean): ApiError {
  const message = illegalKeyText(key);
  const rest = [resourceInfo("state", store), errorInfo("DAPR_STATE_ILLEGAL_KEY")];
  const named = badRequest(key, message);
  const unnamed: ErrorDetail = {
    type: "BadRequest",
    fields: { field_violations: [{ description: message }] },
  };
  return new ApiError({
    code: "ERR_MALFORMED_REQUEST",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    httpMessage: `api error: code = InvalidArgument desc = ${message}`,
    details: [inTransaction ? unnamed : named, ...rest],
    grpcDetails: [named, ...rest],
  });
}

/** An item of a save has no key. */
export function emptyKey(): ApiError {
  return new ApiError({
    code: "ERR_MALFORMED_REQUEST",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: "state key cannot be empty",
    httpMessage: `"key" is a required field`,
    grpcDetails: [errorInfo("ERR_STATE_SAVE")],
  });
}

/** The request itself cannot be understood. */
export function malformedRequest(message: string, cause?: unknown): ApiError {
  return simpleError("ERR_MALFORMED_REQUEST", 400, GrpcCode.InvalidArgument, message, cause);
}

/** A value that a save over gRPC declares to be JSON is none. Clients know it as Unknown without details. */
export function valueNoJson(cause: unknown): ApiError {
  const init = { code: "ERR_MALFORMED_REQUEST", httpStatus: 400, grpcCode: GrpcCode.Unknown };
  return new ApiError({ ...init, message: textOf(cause), cause });
}

export function getFailed(store: string, key: string, cause: unknown): ApiError {
  const message = `fail to get ${key} from state store ${store}: ${textOf(cause)}`;
  return (
    chosen("ERR_STATE_GET", `fail to get ${key} from state store ${store}: `, cause) ??
    passed(cause) ??
    simpleError("ERR_STATE_GET", 500, GrpcCode.Internal, message, cause)
  );
}

export function saveFailed(store: string, cause: unknown): ApiError {
  return writeFailed("ERR_STATE_SAVE", `failed saving state in state store ${store}`, cause);
}

export function deleteFailed(key: string, cause: unknown): ApiError {
  return writeFailed("ERR_STATE_DELETE", `failed deleting state with key ${key}`, cause);
}

export function bulkDeleteFailed(store: string, cause: unknown): ApiError {
  return writeFailed("ERR_STATE_BULK_DELETE", `failed deleting state in state store ${store}`, cause);
}

/** The whole bulk get failed. Over gRPC it carries no detail. */
export function bulkGetFailed(cause: unknown): ApiError {
  const init = { code: "ERR_STATE_BULK_GET", httpStatus: 500, grpcCode: GrpcCode.Unknown };
  return (
    chosen(init.code, "", cause) ?? passed(cause) ?? new ApiError({ ...init, message: textOf(cause), cause })
  );
}

const storesUrl = "https://docs.dapr.io/reference/components-reference/supported-state-stores/";

export function notTransactional(store: string): ApiError {
  return new ApiError({
    code: "ERR_STATE_STORE_NOT_SUPPORTED",
    httpStatus: 500,
    grpcCode: GrpcCode.Unimplemented,
    message: `state store ${store} doesn't support transactions`,
    details: [
      help(storesUrl, "Check the list of state stores and the features they support"),
      resourceInfo("state", store),
      errorInfo("DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED"),
    ],
  });
}

export function unknownOperation(operation: string): ApiError {
  const message = `operation type ${operation} not supported`;
  return simpleError("ERR_NOT_SUPPORTED_STATE_OPERATION", 400, GrpcCode.Unimplemented, message);
}

export function tooManyOperations(store: string, count: number, max: number): ApiError {
  const counts = { currentOpsTransaction: String(count), maxOpsPerTransaction: String(max) };
  return new ApiError({
    code: "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message:
      `the transaction contains ${count} operations, ` +
      `which is more than what the state store supports: ${max}`,
    details: [resourceInfo("state", store), errorInfo("DAPR_STATE_TOO_MANY_TRANSACTIONS", counts)],
  });
}

/** ETag errors have no status of their own here. `key`: the user's, where the store tells which one was refused. */
export function transactionFailed(cause: unknown, key: string | undefined): ApiError {
  const reason = textOf(cause);
  const named = key === undefined || reason.includes(`'${key}'`) ? reason : `${reason} (key '${key}')`;
  const message = `error while executing state transaction: ${named}`;
  const told = chosen("ERR_STATE_TRANSACTION", "error while executing state transaction: ", cause, 500);
  const code = "ERR_STATE_TRANSACTION";
  const grpcDetails = [errorInfo(code, key === undefined ? null : { key })];
  const init = { code, httpStatus: 500, grpcCode: GrpcCode.Internal, message, grpcDetails, cause };
  return told ?? passed(cause) ?? new ApiError(init);
}

export function queryNotSupported(store: string): ApiError {
  return new ApiError({
    code: "ERR_STATE_STORE_NOT_SUPPORTED",
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message: "state store does not support querying",
    details: [resourceInfo("state", store), errorInfo("DAPR_STATE_QUERYING_NOT_SUPPORTED")],
  });
}

export function queryFailed(store: string, cause: unknown): ApiError {
  const error = new ApiError({
    code: "ERR_STATE_QUERY",
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message: `state store ${store} query failed: ${textOf(cause)}`,
    details: [resourceInfo("state", store), errorInfo("DAPR_STATE_QUERY_FAILED")],
    cause,
  });
  return passed(cause) ?? error;
}

/** The store cannot do what only some can: `listing keys`, `watching keys`. */
export function notSupported(store: string, what: string): ApiError {
  return new ApiError({
    code: "ERR_STATE_STORE_NOT_SUPPORTED",
    httpStatus: 501,
    grpcCode: GrpcCode.Unimplemented,
    message: `state store ${store} does not support ${what}; docs/components/state-stores.md names those that do`,
    details: [resourceInfo("state", store), errorInfo("WEFT_STATE_NOT_SUPPORTED")],
  });
}

export function listFailed(store: string, cause: unknown): ApiError {
  const message = `failed listing keys of state store ${store}: ${textOf(cause)}`;
  return passed(cause) ?? simpleError("ERR_STATE_LIST", 500, GrpcCode.Internal, message, cause);
}

export function watchFailed(store: string, cause: unknown): ApiError {
  const message = `failed watching state store ${store}: ${textOf(cause)}`;
  return passed(cause) ?? simpleError("ERR_STATE_WATCH", 500, GrpcCode.Internal, message, cause);
}

export function tooManyWatches(max: number): ApiError {
  const message = `this sidecar has ${max} watches open, which is its limit; end some first`;
  return simpleError("ERR_STATE_WATCH", 429, GrpcCode.ResourceExhausted, message);
}

export function watchesEnd(): ApiError {
  return simpleError("ERR_STATE_WATCH", 503, GrpcCode.Unavailable, "the sidecar stops");
}

/**
 * Joins the failures of a multi-item write. Only ETag errors: one of their kind with all texts (invalid beats
 * mismatch). Mixed: the first ETag error. None: one Error with all texts.
 */
export function joinFailures(failures: readonly Error[]): Error {
  const text = failures.map((failure) => failure.message).join("\n");
  const etagFailures = failures.filter(isEtagError);
  if (etagFailures.length === 0) return new Error(text, { cause: failures[0] });
  if (etagFailures.length < failures.length) return etagFailures[0]!;
  return failures.some((failure) => failure instanceof EtagInvalid)
    ? new EtagInvalid(text)
    : new EtagMismatch(text);
}

/** The store refused a write by its ETag. */
export function isEtagError(error: unknown): boolean {
  return error instanceof EtagMismatch || error instanceof EtagInvalid;
}

function writeFailed(code: string, what: string, cause: unknown): ApiError {
  const message = `${what}: ${textOf(cause)}`;
  if (cause instanceof EtagMismatch) return simpleError(code, 409, GrpcCode.Aborted, message, cause);
  if (cause instanceof EtagInvalid) return simpleError(code, 400, GrpcCode.InvalidArgument, message, cause);
  return (
    chosen(code, `${what}: `, cause) ??
    passed(cause) ??
    simpleError(code, 500, GrpcCode.Internal, message, cause)
  );
}

/** Over HTTP our code and words with the store's status; over gRPC the store's error whole. */
function chosen(code: string, prefix: string, cause: unknown, httpStatus?: number): ApiError | undefined {
  if (!(cause instanceof StoreError) || cause.api === undefined) return undefined;
  const { grpcCode, message, grpcStatus, httpStatus: own } = cause.api;
  return new ApiError({
    code,
    httpStatus: httpStatus ?? own,
    grpcCode,
    message,
    httpMessage: prefix + cause.message,
    grpcDetails: [],
    grpcStatus,
    cause,
  });
}

/** An error made deeper down goes to the client as it is, a store's own one whole. */
function passed(cause: unknown): ApiError | undefined {
  if (cause instanceof StoreError) return cause.api;
  return cause instanceof ApiError ? cause : undefined;
}
