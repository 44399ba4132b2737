import { describe, expect, it } from "vitest";
import { readConnectionString } from "./sqlite-connection.ts";

const plain = { readOnly: false, inMemory: false, pragmas: [] };

describe("connection strings of SQLite", () => {
  it.each([
    ["data.db", { ...plain, location: "file:data.db" }],
    ["/a/b.db", { ...plain, location: "file:/a/b.db" }],
    ["file:data.db?cache=shared&_txlock=immediate", { ...plain, location: "file:data.db?cache=shared" }],
    ["file:data.db?mode=ro", { ...plain, location: "file:data.db?mode=ro", readOnly: true }],
    ["file:d.db?immutable=1", { ...plain, location: "file:d.db?immutable=1", readOnly: true }],
    [":memory:", { ...plain, location: ":memory:", inMemory: true }],
    ["file::memory:?cache=shared", { ...plain, location: ":memory:", inMemory: true }],
    ["x?_pragma=cache_size(-2000)", { ...plain, location: "file:x", pragmas: ["PRAGMA cache_size = -2000"] }],
  ])("reads %s", (text, wanted) => {
    expect(readConnectionString(text)).toEqual(wanted);
  });

  it.each(["busy_timeout(1)", "journal_mode(DELETE)", "foreign_keys=1", "x; DROP TABLE state"])(
    "refuses _pragma=%s",
    (pragma) => {
      expect(() => readConnectionString(`x?_pragma=${encodeURIComponent(pragma)}`)).toThrow(
        "connection string: _pragma",
      );
    },
  );
});
