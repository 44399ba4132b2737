import { expect, it } from "vitest";
import { Room } from "./room.ts";

it("lets so many bytes on their way at once, in order, and those that give up take no place", async () => {
  const room = new Room(10);
  const begun: string[] = [];
  const turn = (name: string, bytes: number, signal?: AbortSignal): Promise<unknown> =>
    room.turn(bytes, signal).then(() => begun.push(name));
  expect([room.take(4), room.take(4), room.take(4)]).toEqual([true, true, false]);
  const giving = new AbortController();
  const givenUp = turn("c", 4, giving.signal);
  const others = [turn("huge", 100), turn("d", 1)];
  expect(room.take(1)).toBe(false);
  giving.abort();
  await expect(givenUp).rejects.toMatchObject({ code: "cancelled" });
  await expect(room.turn(1, giving.signal)).rejects.toMatchObject({ code: "cancelled" });
  room.give(4);
  expect(begun).toEqual([]);
  room.give(4);
  await others[0];
  expect(begun).toEqual(["huge"]);
  room.give(100);
  await others[1];
  room.give(1);
  expect([room.take(10), room.take(1)]).toEqual([true, false]);
});
