import { expect, it } from "vitest";
import { Room } from "./room.ts";

it("lets so many bytes on their way at once, in order, and those that give up take no place", async () => {
  const room = new Room(10);
  const ends: (() => void)[] = [];
  const begun: string[] = [];
  const ask = (name: string, bytes: number, signal?: AbortSignal): Promise<void> =>
    room.run(bytes, signal, () => {
      begun.push(name);
      return new Promise((resolve) => ends.push(resolve));
    });
  const giving = new AbortController();
  const asked = [ask("a", 4), ask("b", 4), ask("c", 4, giving.signal), ask("huge", 100), ask("d", 1)];
  expect(begun).toEqual(["a", "b"]);
  giving.abort();
  await expect(asked[2]).rejects.toMatchObject({ code: "cancelled" });
  ends[0]!();
  ends[1]!();
  await expect.poll(() => begun).toEqual(["a", "b", "huge"]);
  ends[2]!();
  await expect.poll(() => begun).toEqual(["a", "b", "huge", "d"]);
  ends[3]!();
  await Promise.allSettled(asked);
  await expect(room.run(10, undefined, () => Promise.reject(new Error("boom")))).rejects.toThrow("boom");
  expect(await room.run(10, undefined, () => Promise.resolve("free"))).toBe("free");
});
