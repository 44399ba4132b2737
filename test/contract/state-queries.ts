/** The part of the contract suite of state stores that is about queries, for stores that have them. */
import { beforeAll, expect, it } from "vitest";
import type { StateFilter, StateQuery } from "../../src/blocks/state/port.ts";
import { type Suite, freshKey, saving, signal, text } from "./state-steps.ts";

const people = [
  { name: "Ann", age: 9, home: { state: "CA" }, vip: true },
  { name: "Bob", age: 10, home: { state: "WA" }, vip: false },
  { name: "Cem", age: 100, home: { state: "CA" }, vip: null },
  { name: "Dr. O'Neil; DROP TABLE state", age: 33, home: { state: "TX" }, "odd'name\"": { $gt: 1 } },
];

export function queries({ fixture }: Suite): void {
  const team = freshKey();
  beforeAll(async () => {
    for (const person of people) {
      const value = JSON.stringify({ ...person, team });
      await fixture().store.set(saving(`${team}||${person.name}`, value, { json: true }), signal);
    }
    const ended = JSON.stringify({ name: "Gone", team });
    await fixture().store.set(saving(`${team}||Gone`, ended, { json: true, ttlSeconds: 3600 }), signal);
    await fixture().store.delete({ ...saving(`${team}||Gone`, ""), kind: "delete" }, signal);
    await fixture().store.set(saving(`${team}||text`, "bytes"), signal);
  });

  const ours: StateFilter = { operator: "EQ", path: ["team"], operand: team };
  const run = async (more: Partial<StateQuery> & { filter?: StateFilter }): Promise<string[]> => {
    const filter: StateFilter =
      more.filter === undefined ? ours : { operator: "AND", filters: [ours, more.filter] };
    const sort = [{ path: ["name"], descending: false }];
    const rows = await fixture().store.query!({ sort, limit: 0, offset: 0, ...more, filter }, {}, signal);
    return rows.map(({ value }) => (JSON.parse(text({ value, etag: "" })!) as { name: string }).name);
  };
  const names = (...which: number[]): string[] => which.map((index) => people[index]!.name);

  const cases: [string, StateFilter, number[]][] = [
    ["EQ on a text", { operator: "EQ", path: ["name"], operand: "Bob" }, [1]],
    ["EQ on a number", { operator: "EQ", path: ["age"], operand: 10 }, [1]],
    ["EQ on a truth value", { operator: "EQ", path: ["vip"], operand: true }, [0]],
    ["EQ below", { operator: "EQ", path: ["home", "state"], operand: "CA" }, [0, 2]],
    ["EQ with quotes", { operator: "EQ", path: ["name"], operand: people[3]!.name }, [3]],
    ["NEQ", { operator: "NEQ", path: ["home", "state"], operand: "CA" }, [1, 3]],
    ["GT by number, not by text", { operator: "GT", path: ["age"], operand: 10 }, [2, 3]],
    ["GTE", { operator: "GTE", path: ["age"], operand: 10 }, [1, 2, 3]],
    ["LT", { operator: "LT", path: ["age"], operand: 10 }, [0]],
    ["LTE", { operator: "LTE", path: ["age"], operand: 10 }, [0, 1]],
    ["IN", { operator: "IN", path: ["home", "state"], operands: ["WA", "TX"] }, [1, 3]],
    ["an operand that looks like an operator", { operator: "EQ", path: ["age"], operand: { $gt: 0 } }, []],
    ["a name that breaks out of quotes", { operator: "EQ", path: ["odd'name\"", "x"], operand: 1 }, []],
  ];
  it.each(cases)("finds by %s", async (_, filter, found) => {
    expect(await run({ filter })).toEqual(names(...found));
  });

  it("finds by AND and OR inside each other", async () => {
    const west: StateFilter = { operator: "IN", path: ["home", "state"], operands: ["CA", "WA"] };
    const young: StateFilter = { operator: "LT", path: ["age"], operand: 10 };
    const old: StateFilter = { operator: "GT", path: ["age"], operand: 50 };
    const ends: StateFilter = { operator: "OR", filters: [young, old] };
    expect(await run({ filter: { operator: "AND", filters: [west, ends] } })).toEqual(names(0, 2));
  });

  it("sorts, cuts and goes on", async () => {
    const sort = [
      { path: ["home", "state"], descending: true },
      { path: ["age"], descending: false },
    ];
    expect(await run({ sort })).toEqual(names(1, 3, 0, 2));
    expect(await run({ sort, limit: 2 })).toEqual(names(1, 3));
    expect(await run({ sort, limit: 2, offset: 2 })).toEqual(names(0, 2));
    expect(await run({ sort, limit: 2, offset: 4 })).toEqual([]);
  });

  it("gives keys and ETags that serve the next write", async () => {
    const filter: StateFilter = { operator: "AND", filters: [ours, cases[0]![1]] };
    const [row] = await fixture().store.query!({ filter, sort: [], limit: 0, offset: 0 }, {}, signal);
    expect(row!.key).toBe(`${team}||Bob`);
    const value = Buffer.from(row!.value).toString();
    await fixture().store.set(saving(row!.key, value, { json: true, etag: row!.etag }), signal);
  });
}
