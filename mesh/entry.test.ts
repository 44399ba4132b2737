import { describe, expect, it } from "vitest";
import { guardOf, opOf, readEntry, readLeaderEntry, readTtl, writeHeaders } from "./entry.ts";
import { headerPairs } from "./headers.ts";

const time = "2026-11-21T15:30:57.129Z";
const stored = (...lines: string[]): { headers: string; data: Buffer } => ({
  headers: `NATS/1.0\r\n${[...lines, "Nats-Sequence: 7", `Nats-Time-Stamp: ${time}`].join("\r\n")}\r\n\r\n`,
  data: Buffer.from("v"),
});

describe("a stored value", () => {
  it("is read with its revision and expiry, also in the leader's form", () => {
    const { headers, data } = stored("Nats-TTL: 10s", "Weft-Op: x", "Nats-Expected-Last-Subject-Sequence: 6");
    const entry = { value: data, revision: 7, expiresAtMs: Date.parse(time) + 10_000 };
    const direct = readEntry({ headers, data });
    expect(direct.entry).toEqual(entry);
    expect([opOf(direct), guardOf(direct)]).toEqual(["x", 6]);
    const leader = readLeaderEntry({
      seq: 7,
      data: data.toString("base64"),
      hdrs: Buffer.from(headers).toString("base64"),
      time,
    });
    expect(leader.entry).toEqual(entry);
    expect([opOf(leader), guardOf(leader)]).toEqual(["x", 6]);
    expect(readLeaderEntry({ seq: 8, time }).entry).toEqual({ value: Buffer.alloc(0), revision: 8 });
    expect(guardOf(readEntry(stored()))).toBeUndefined();
  });

  it.each(["KV-Operation: DEL", "KV-Operation: PURGE", "Nats-Marker-Reason: MaxAge"])(
    "is gone with %s",
    (line) => {
      expect(readEntry(stored(line))).toMatchObject({ entry: undefined, revision: 7 });
    },
  );

  it.each([
    ["", undefined],
    ["never", undefined],
    ["junk", undefined],
    ["90", 90],
    ["90s", 90],
    ["1h30m", 5_400],
    ["1h0m0s", 3_600],
    ["1m1.9s", 61],
    ["1500ms", 1],
  ])("lives %j: %s s", (text, seconds) => {
    expect(readTtl(text)).toBe(seconds);
  });
});

describe("headers of a write", () => {
  it("are none for the common case", () => {
    expect(writeHeaders({ kind: "put", key: ["k"], value: Buffer.from("v") }, "k")).toBeUndefined();
  });

  it("say what is to be done", () => {
    const list = (...args: Parameters<typeof writeHeaders>): [string, string][] =>
      headerPairs(Buffer.from(writeHeaders(...args)!.encode()).toString());
    expect(list({ kind: "delete", key: ["k"] }, "k", 3, "op")).toEqual([
      ["KV-Operation", "DEL"],
      ["Nats-TTL", "3600s"],
      ["Nats-Expected-Last-Subject-Sequence", "3"],
      ["Weft-Op", "op"],
    ]);
    const put = { kind: "put", key: ["a", "b"], value: Buffer.from("v"), ttlSeconds: 1.2 } as const;
    expect(list(put, `a.=h${"0".repeat(64)}`, 0)).toEqual([
      ["Nats-TTL", "2s"],
      ["Nats-Expected-Last-Subject-Sequence", "0"],
      ["Weft-Key", "a.b"],
    ]);
  });
});
