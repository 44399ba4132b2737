/** Methods of the lock API over gRPC: decode, call lock.ts, encode. */
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { UnlockResponse_Status as Status } from "../../../proto/gen/dapr/proto/runtime/v1/lock_pb.ts";
import { type GrpcMethod, unary } from "../../api/grpc.ts";
import type { Locks } from "./lock.ts";

const statuses = {
  done: Status.SUCCESS,
  absent: Status.LOCK_DOES_NOT_EXIST,
  others: Status.LOCK_BELONGS_TO_OTHERS,
};

/** All gRPC methods of the block. The fencing number goes in the response's headers. */
export function lockGrpcMethods(locks: Locks): GrpcMethod[] {
  return [
    unary(Dapr.method.tryLockAlpha1, async (request, call) => {
      const { storeName, resourceId, lockOwner: owner, expiryInSeconds: expirySeconds } = request;
      const grant = await locks.tryLock(storeName, { resourceId, owner, expirySeconds }, call.signal);
      if (grant?.fence !== undefined) call.setHeader("weft-fence", String(grant.fence));
      return { success: grant !== undefined };
    }),
    unary(Dapr.method.unlockAlpha1, async ({ storeName, resourceId, lockOwner: owner }, call) => {
      return { status: statuses[await locks.unlock(storeName, { resourceId, owner }, call.signal)] };
    }),
  ];
}
