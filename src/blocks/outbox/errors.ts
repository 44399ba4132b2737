/** What the outbox answers to a transaction, in the words clients know from Dapr. */
import { ApiError, errorInfo, GrpcCode } from "../../api/errors.ts";
import { textOf } from "../../lib/thrown.ts";

/** An event of a transaction could not be handed to its broker; nothing was stored. */
export function outboxFailed(appId: string, cause: unknown): ApiError {
  const error = textOf(cause);
  return new ApiError({
    code: "ERR_PUBLISH_OUTBOX",
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message: `error while publishing outbox message: ${error}`,
    details: [errorInfo("DAPR_PUBSUB_OUTBOX", { appID: appId, error })],
    cause,
  });
}
