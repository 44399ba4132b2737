/** Routes of the lock API over HTTP: decode, call lock.ts, encode. */
import { type HttpCall, type HttpReply, type HttpRoute, jsonReply } from "../../api/http.ts";
import { unmarshalJson } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { bodyUnreadable } from "./errors.ts";
import type { Locks, TryLockRequest } from "./lock.ts";
import type { Unlocked } from "./port.ts";

/** Numbers of `UnlockResponse.Status`, which stand as such in the body. */
const statusNumbers: Readonly<Record<Unlocked, number>> = { done: 0, absent: 1, others: 2 };

/** All HTTP routes of the block. */
export function lockHttpRoutes(locks: Locks): HttpRoute[] {
  return [
    {
      verbs: ["POST"],
      path: "/v1.0-alpha1/lock/{store}",
      name: "TryLockAlpha1",
      group: "lock",
      async handle(call) {
        const grant = await locks.tryLock(call.params[0]!, await readBody(call), call.signal);
        const reply = jsonReply(`{"success":${grant !== undefined}}`);
        return grant?.fence === undefined ? reply : withFence(reply, grant.fence);
      },
    },
    {
      verbs: ["POST"],
      path: "/v1.0-alpha1/unlock/{store}",
      name: "UnlockAlpha1",
      group: "unlock",
      async handle(call) {
        const unlocked = await locks.unlock(call.params[0]!, await readBody(call), call.signal);
        return jsonReply(`{"status":${statusNumbers[unlocked]}}`);
      },
    },
  ];
}

function withFence(reply: HttpReply, fence: number): HttpReply {
  return { ...reply, headers: { ...reply.headers, "Weft-Fence": String(fence) } };
}

const json = jsonFields((message) => new Error(message));
const int32 = { min: -(2 ** 31), max: 2 ** 31 - 1 };

/** Names in both spellings of protobuf JSON; others are ignored. Throws ERR_MALFORMED_REQUEST. */
async function readBody(call: HttpCall): Promise<TryLockRequest> {
  const text = (await call.body()).toString();
  try {
    const value = text === "" ? {} : unmarshalJson(text);
    if (value === null) throw new Error("the body must be an object, but is null");
    const body = json.object(value, "the body");
    return {
      resourceId: json.text(body["resourceId"] ?? body["resource_id"], '"resourceId"'),
      owner: json.text(body["lockOwner"] ?? body["lock_owner"], '"lockOwner"'),
      expirySeconds: readInt32(body["expiryInSeconds"] ?? body["expiry_in_seconds"]),
    };
  } catch (cause) {
    throw bodyUnreadable(cause);
  }
}

/** Numbers may stand in quotes, and have an exponent. */
function readInt32(value: unknown): number {
  const quoted = typeof value === "string" && /^-?\d{1,10}(\.\d{1,10})?([eE][-+]?\d{1,2})?$/.test(value);
  const number = quoted ? Number(value) : value;
  const seconds = json.integer(number, '"expiryInSeconds"');
  if (seconds < int32.min || seconds > int32.max)
    throw new Error(`"expiryInSeconds" must be between ${int32.min} and ${int32.max}`);
  return seconds;
}
