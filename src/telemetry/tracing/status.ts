/** The text of a span's error status for an HTTP answer. */
import { STATUS_CODES } from "node:http";

/** `Code(404): Not Found`. */
export function httpStatusText(status: number): string {
  return `Code(${status}): ${STATUS_CODES[status] ?? ""}`;
}
