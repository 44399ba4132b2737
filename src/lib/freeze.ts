/**
 * Settings and resources are parsed once and then shared by every part: freezing makes a write fail at once.
 */

/** Freezes `value` and every plain object and array in it. Not for cyclic values. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  for (const part of Object.values(value)) deepFreeze(part);
  return Object.freeze(value);
}
