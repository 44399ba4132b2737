/** Deletes expired rows now and then. They are invisible once they expire, so this is about room alone. */
import type { Timer } from "../../../../mesh/index.ts";
import type { ComponentContext } from "../../component.ts";

/** The metadata field, without its default. */
export const cleanupField = {
  kind: "duration",
  description: "How often expired rows are deleted; 0 and less: never. They are invisible once they expire.",
  aliases: ["cleanupIntervalInSeconds"],
} as const;

/** Calls `clean` once per interval; undefined where that is never. What fails is logged. */
export function cleanEvery(
  intervalMs: number,
  table: string,
  { clock, log }: Pick<ComponentContext, "clock" | "log">,
  clean: (intervalMs: number) => Promise<void>,
): Timer | undefined {
  if (intervalMs <= 0) return undefined;
  return clock.setInterval(() => {
    clean(intervalMs).catch((error: Error) =>
      log.warn(`expired rows of ${table} are not deleted: ${error.message}`),
    );
  }, intervalMs);
}
