import { expect, test } from "vitest";
import { systemClock } from "../clock.ts";
import { FindNatsError } from "./errors.ts";
import { findNats, type FindOptions, type FoundNats } from "./find.ts";

/** Finds with given servers only: no home and no port of this machine is looked at. */
function find(options: Partial<FindOptions>): Promise<FoundNats> {
  const progress = (): void => expect.unreachable();
  return findNats({
    env: {},
    clock: systemClock,
    home: "/nowhere/at/all",
    progress,
    defaultPort: 1,
    ...options,
  });
}

test("given servers are used as they are", async () => {
  const found = await find({ urls: ["nats://a:1, tls://b", "c:4222"] });
  expect(found).toMatchObject({ way: "given", urls: ["nats://a:1", "tls://b", "c:4222"] });
  expect(found.detail).toBe("using nats://a:1, tls://b, c:4222 as given");
  expect(await found.ensure()).toEqual({ urls: found.urls, restarted: false, moved: false });
});

test("the environment counts when the option is empty", async () => {
  const env = { WEFT_NATS_URL: "nats://env:1" };
  expect((await find({ urls: [" ", ","], env })).urls).toEqual(["nats://env:1"]);
  expect((await find({ urls: ["nats://option:1"], env })).urls).toEqual(["nats://option:1"]);
});

test("secrets in an address do not reach the log", async () => {
  await expect(find({ urls: ["http://user:secret@a"] })).rejects.toThrow(
    /^"http:\/\/\*\*\*@a" is not a NATS URL/,
  );
  await expect(find({ urls: ["nats://user:sec/ret@a:1"] })).rejects.toThrow(
    /^"nats:\/\/\*\*\*@a:1" is not a NATS URL/,
  );
});

test.each(["http://a:4222", "nats://", "nats://a b", "a:notaport"])(
  "%j is refused with the right form",
  async (url) => {
    await expect(find({ urls: [url] })).rejects.toThrow(/is not a NATS URL.*nats:\/\/host:4222/);
  },
);

test.each([
  ["nats://user:secret@a:1", "nats://***@a:1"],
  ["tls://user:s@cret@a:1", "tls://***@a:1"],
  ["token-secret@b:2", "***@b:2"],
])("%s is refused: the client takes no credentials from a URL", async (url, shown) => {
  const refused = find({ urls: ["nats://a:1", url] });
  await expect(refused).rejects.toThrow(FindNatsError);
  await expect(refused).rejects.toThrow(
    `"${shown}" holds credentials, which are not read from a URL: put them in ` +
      "--nats-user / --nats-password (WEFT_NATS_USER / WEFT_NATS_PASSWORD).",
  );
});

test("too many servers are refused", async () => {
  await expect(find({ urls: ["a,".repeat(65)] })).rejects.toThrow(/65 NATS URLs/);
});
