/** A loop over a list whose steps run side by side, but never more than so many at once. */

/**
 * Runs `step` for every item, begun in the order of the list, at most `limit` (>= 1) at once; resolves when all are
 * done. Rejects with the first rejection of a step; then no further step begins, those that run go on.
 */
export async function eachAtMost<T>(
  items: readonly T[],
  limit: number,
  step: (item: T, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      try {
        await step(items[index]!, index);
      } catch (error) {
        next = items.length;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
}
