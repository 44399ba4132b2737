/**
 * Versions of nats-server: the oldest one that Weft works with, those that are fetched when none is installed, and
 * how to read and compare them.
 */

/**
 * The oldest nats-server with everything the mesh uses (recurring schedules, atomic batches, message TTL).
 */
export const minimumVersion = "2.14.0";

/**
 * What is fetched, by its source: each the newest there that was tried. The sums of the release's archives are in
 * release.ts; a new release needs new sums.
 */
export const releaseVersion = "2.15.0";
export const wheelVersion = "2.15.1";
export const moduleVersion = "2.15.2";

/** Finds the first `major.minor.patch` in a text, such as the answer of `nats-server --version`. */
export function readVersion(text: string): string | undefined {
  return /\d{1,6}\.\d{1,6}\.\d{1,6}/.exec(text)?.[0];
}

/** True when `version` is `least` or newer. Text after the patch number (`-RC.1`) is not looked at. */
export function isAtLeast(version: string, least: string): boolean {
  const have = numbersOf(version);
  const want = numbersOf(least);
  for (let i = 0; i < 3; i += 1) {
    const difference = (have[i] ?? 0) - (want[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

function numbersOf(version: string): number[] {
  return (readVersion(version) ?? "0.0.0").split(".").map(Number);
}
