/**
 * What every configuration store must do, as one suite over the port (src/blocks/configuration/port.ts). A store joins
 * by one call of `configurationStoreContract` in configurationstore.test.ts, with a way to change what it holds.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ConfigurationItem, ConfigurationStore } from "../../src/blocks/configuration/port.ts";
import { eventually } from "../kit/eventually.ts";

export type ConfigurationFixture = {
  readonly store: ConfigurationStore;
  /** Puts the value where the store finds it, as another program would. */
  put(key: string, value: string): Promise<void>;
  /** Undefined where a deletion is told to nobody. */
  readonly remove: ((key: string) => Promise<void>) | undefined;
  /** Ends what connects the store with its server, for a moment. */
  outage(): Promise<void>;
  close(): Promise<void>;
};

const signal = new AbortController().signal;

/** Runs the suite. */
export function configurationStoreContract(name: string, open: () => Promise<ConfigurationFixture>): void {
  describe(`configuration store ${name}`, () => {
    let fixture: ConfigurationFixture;
    let store: ConfigurationStore;
    beforeAll(async () => {
      fixture = await open();
      store = fixture.store;
    }, 60_000);
    afterAll(async () => {
      await fixture?.close();
    });

    const values = async (keys: readonly string[]): Promise<Record<string, string>> =>
      Object.fromEntries([...(await store.get(keys, {}, signal))].map(([key, { value }]) => [key, value]));
    /** What a subscription tells, as it comes. */
    const listen = async (keys: readonly string[]) => {
      const told: [string, ConfigurationItem][] = [];
      const subscription = await store.subscribe(keys, {}, (key, item) => told.push([key, item]), signal);
      const lastOf = (key: string): string | undefined =>
        told.findLast(([changed]) => changed === key)?.[1].value;
      return { told, lastOf, stop: () => subscription.stop() };
    };

    it("gives items by key, and all without keys", async () => {
      expect(await values(["none"])).toEqual({});
      await fixture.put("color", "blue");
      await fixture.put("a/b.c", "wörd\n{}");
      expect(await values(["color", "none", "color"])).toEqual({ color: "blue" });
      expect(await values([])).toMatchObject({ color: "blue", "a/b.c": "wörd\n{}" });
    });

    it("tells changes of the keys that were asked for, and no more after the end", async () => {
      const some = await listen(["watched", "other"]);
      const all = await listen([]);
      await fixture.put("unwatched", "1");
      await fixture.put("watched", "one");
      await eventually(() => expect(some.lastOf("watched")).toBe("one"));
      await fixture.put("watched", "two");
      await eventually(() => expect(some.lastOf("watched")).toBe("two"));
      await eventually(() => expect(all.lastOf("watched")).toBe("two"));
      await eventually(() => expect(all.lastOf("unwatched")).toBe("1"));
      expect(some.lastOf("unwatched")).toBeUndefined();
      await some.stop();
      const count = some.told.length;
      await fixture.put("watched", "three");
      await eventually(() => expect(all.lastOf("watched")).toBe("three"));
      expect(some.told).toHaveLength(count);
      await all.stop();
    });

    it("tells a deleted key as an empty item, where it can", async () => {
      if (fixture.remove === undefined) return;
      await fixture.put("leaving", "x");
      const heard = await listen(["leaving"]);
      await fixture.remove("leaving");
      const gone = ["leaving", { value: "", version: "", metadata: {} }];
      await eventually(() => expect(heard.told.at(-1)).toEqual(gone));
      expect(await values(["leaving"])).toEqual({});
      await heard.stop();
    });

    it("goes on after an outage", async () => {
      const heard = await listen(["survivor"]);
      await fixture.outage();
      let count = 0;
      await eventually(
        async () => {
          const value = String(++count);
          await fixture.put("survivor", value);
          await eventually(() => expect(heard.lastOf("survivor")).toBe(value), { timeoutMs: 1_500 });
          expect(await values(["survivor"])).toEqual({ survivor: value });
        },
        { timeoutMs: 45_000 },
      );
      await heard.stop();
    }, 60_000);
  });
}
