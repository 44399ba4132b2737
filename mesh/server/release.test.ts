import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { systemClock } from "../clock.ts";
import { downloadRelease, pinnedRelease, releasePlatform } from "./release.ts";

const program = Buffer.from("the program");
const head = Buffer.alloc(512);
head.write("nats-server-v9.9.9-test/nats-server", 0, "latin1");
head.write(`${program.length.toString(8).padStart(11, "0")}\0`, 124, "latin1");
const archive = gzipSync(Buffer.concat([head, program, Buffer.alloc(1024)]));
const sum = createHash("sha256").update(archive).digest("hex");

/** Downloads from a server that answers with `listener`. */
async function downloadFrom(
  listener: RequestListener,
  sha256: Record<string, string> = { test: sum },
): Promise<Buffer> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v9`;
  return downloadRelease({ version: "9.9.9", url, sha256 }, { clock: systemClock, platform: "test" });
}

test("takes the program out of the archive, past a redirect", async () => {
  const result = await downloadFrom((request, response) => {
    if (request.url === "/v9/nats-server-v9.9.9-test.tar.gz")
      response.writeHead(302, { location: "/real" }).end();
    else if (request.url === "/real") response.end(archive);
    else response.writeHead(404).end();
  });
  expect(result).toEqual(program);
});

test("an archive with another sum is not used", async () => {
  const changed = downloadFrom(
    (_, response) => void response.end(Buffer.concat([archive, Buffer.from("x")])),
  );
  await expect(changed).rejects.toThrow(/SHA-256 is [0-9a-f]{64}, expected .* not used/);
});

test("an answer that is not OK is named", async () => {
  await expect(downloadFrom((_, response) => void response.writeHead(503).end())).rejects.toThrow(
    "answered 503",
  );
});

test("no server is named by its cause", async () => {
  const release = { version: "9.9.9", url: "http://127.0.0.1:1/v9", sha256: { test: sum } };
  const download = downloadRelease(release, { clock: systemClock, platform: "test" });
  await expect(download).rejects.toThrow(/ECONNREFUSED|bad port/);
});

test("a platform without a pinned archive is refused before anything is asked", async () => {
  await expect(downloadFrom(() => expect.unreachable(), {})).rejects.toThrow("no pinned archive for test");
});

test("platforms are named as the archives are", () => {
  expect(releasePlatform("linux", "x64")).toBe("linux-amd64");
  expect(releasePlatform("darwin", "arm64")).toBe("darwin-arm64");
  for (const value of Object.values(pinnedRelease.sha256)) expect(value).toMatch(/^[0-9a-f]{64}$/);
});
