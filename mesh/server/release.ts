/**
 * Downloads nats-server from its official releases. The archive's SHA-256 is pinned here, so what is run is
 * what was looked at, whoever answers the request. The sums are those of the release's own SHA256SUMS; for
 * Linux the official container image's build file (nats-io/nats-docker, 2.15.x/alpine3.22) states the same.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../clock.ts";
import { fromTarGz } from "./unpack.ts";
import { releaseVersion } from "./version.ts";

const answerMs = 5_000;
const downloadMs = 120_000;
const maxArchiveBytes = 64 * 1024 * 1024;

/** A release and the sums of its archives by `<system>-<architecture>`, as the archives are named. */
export type Release = {
  readonly version: string;
  /** Folder of the archives, without a slash at the end. */
  readonly url: string;
  readonly sha256: Readonly<Record<string, string>>;
};

export const pinnedRelease: Release = Object.freeze({
  version: releaseVersion,
  url: `https://github.com/nats-io/nats-server/releases/download/v${releaseVersion}`,
  sha256: Object.freeze({
    "darwin-amd64": "5bd8b59ca5bf93fab3da2c5843cf564cd6e2e291e22ae3b861746e7ebe259b95",
    "darwin-arm64": "e1c4e22d70bd44abfa0bcb3c16f7cf0c66f648c2e728c58924e8a1ce88913cc8",
    "linux-amd64": "5d2c51caca950333aba84911df7d377f826f3a59ec36061c6539105084f65c92",
    "linux-arm64": "cdc208f5a3f42963a52b6ab06ef65626bb870315dc936e26ba571780c6351112",
  }),
});

/** Name of this machine as releases name it, such as `linux-amd64`. */
export function releasePlatform(
  system: string = process.platform,
  architecture: string = process.arch,
): string {
  return `${system}-${architecture === "x64" ? "amd64" : architecture}`;
}

/**
 * Resolves to the nats-server program's bytes. Rejects with a plain Error when there is no pinned archive for
 * this platform, no answer within 5 s, no end within 2 minutes, or when the sum differs.
 */
export async function downloadRelease(
  release: Release,
  options: { clock: Clock; signal?: AbortSignal | undefined; platform?: string },
): Promise<Buffer> {
  const platform = options.platform ?? releasePlatform();
  const expected = release.sha256[platform];
  if (expected === undefined) throw new Error(`no pinned archive for ${platform}`);
  const url = `${release.url}/nats-server-v${release.version}-${platform}.tar.gz`;
  const archive = await download(url, options);
  const sum = createHash("sha256").update(archive).digest("hex");
  if (sum !== expected)
    throw new Error(`the archive's SHA-256 is ${sum}, expected ${expected}; it was not used`);
  return fromTarGz(archive, "/nats-server");
}

async function download(
  url: string,
  { clock, signal }: { clock: Clock; signal?: AbortSignal | undefined },
): Promise<Buffer> {
  const late = new AbortController();
  const abort = (what: string) => (): void => late.abort(new Error(what));
  const whole = clock.setTimeout(abort(`no end within ${downloadMs / 1000} s`), downloadMs);
  const answer = clock.setTimeout(abort(`no answer within ${answerMs / 1000} s`), answerMs);
  try {
    const response = await fetch(url, {
      signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
    });
    answer.cancel();
    if (!response.ok || response.body === null) throw new Error(`answered ${response.status}`);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      bytes += chunk.length;
      if (bytes > maxArchiveBytes) throw new Error("the archive is larger than 64 MiB");
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    // fetch hides the cause ("fetch failed"); the cause names it (ENOTFOUND, ECONNREFUSED, ...).
    throw error instanceof TypeError && error.cause instanceof Error ? error.cause : error;
  } finally {
    whole.cancel();
    answer.cancel();
  }
}
