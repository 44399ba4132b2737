/** Whether a caller knows DAPR_API_TOKEN, the same on both ports. */
import { timingSafeEqual } from "node:crypto";

const separator = Buffer.from(", ");

/** `given` as node gives the header: values of a repeated one joined. As with Dapr the first one counts. */
export function isApiToken(given: string, wanted: Buffer): boolean {
  const bytes = Buffer.from(given, "latin1");
  if (bytes.length < wanted.length || !timingSafeEqual(bytes.subarray(0, wanted.length), wanted))
    return false;
  return bytes.length === wanted.length || bytes.indexOf(separator, wanted.length) === wanted.length;
}
