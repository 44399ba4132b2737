// Replicas that answer stale cannot be had on demand, so this table talks to three that are made up.
import { describe, expect, it } from "vitest";
import { systemClock } from "./clock.ts";
import { MeshError } from "./errors.ts";
import { JetStreamError, type JetStream, type StoredMessage } from "./jetstream.ts";
import { Room } from "./room.ts";
import { JetStreamTable } from "./table.ts";
import type { Topology } from "./topology.ts";

type Stored = { revision: number; value: string };

/** The leader has everything; the replica that answers direct reads has what `lag` was given before. */
function lagging() {
  const leader = new Map<string, Stored>();
  let replica = new Map<string, Stored>();
  let revision = 0;
  let frozen = false;
  const asked = { leader: 0, replica: 0 };
  const message = (subject: string, { revision: seq, value }: Stored): StoredMessage => ({
    headers: `NATS/1.0\r\nNats-Subject: ${subject}\r\nNats-Sequence: ${seq}\r\n\r\n`,
    data: Buffer.from(value),
  });
  const js = {
    room: new Room(1e6),
    connection: {
      settings: { clock: systemClock, random: Math.random },
      maxPayloadBytes: () => 1e6,
      checkSize: () => {},
      readyWithin: async () => {},
    },
    endIn: (ms: number) => systemClock.monotonicMs() + ms,
    publishWithoutAck: (subject: string, data: Uint8Array) =>
      void leader.set(subject, { revision: ++revision, value: String(data) }),
    publish: async (subject: string, data: Uint8Array) => {
      leader.set(subject, { revision: ++revision, value: String(data) });
      return { stream: "S", seq: revision };
    },
    directGet: async (_stream: string, subject: string) => {
      asked.replica++;
      if (frozen) throw new MeshError("timeout", "frozen");
      const found = replica.get(subject);
      return found === undefined ? undefined : message(subject, found);
    },
    directGetMany: async (_stream: string, request: { multi_last: string[] }) => ({
      messages: request.multi_last.flatMap((subject) =>
        replica.has(subject) ? [message(subject, replica.get(subject)!)] : [],
      ),
      pending: 0,
    }),
    api: async (_subject: string, request: { last_by_subj: string }) => {
      asked.leader++;
      const found = leader.get(request.last_by_subj);
      if (found === undefined) throw new JetStreamError(404, 10037, "no message found");
      return {
        message: {
          seq: found.revision,
          data: Buffer.from(found.value).toString("base64"),
          time: "2026-01-01T00:00:00Z",
        },
      };
    },
  };
  const topology = { replicasOf: () => 3, ensure: async () => 3 };
  const table = new JetStreamTable(js as unknown as JetStream, topology as unknown as Topology, "b", {
    storage: "file",
  });
  return {
    table,
    asked,
    catchUp: () => (replica = new Map(leader)),
    freeze: () => (frozen = true),
    /** Somebody else writes. */
    write: (key: string, value: string) => void leader.set(`$KV.b.${key}`, { revision: ++revision, value }),
  };
}

const text = (entry: { value: Uint8Array } | undefined): string | undefined =>
  entry === undefined ? undefined : Buffer.from(entry.value).toString();

describe("a table with replicas", () => {
  it("never gives less than its own last write", async () => {
    const { table, asked, catchUp } = lagging();
    await table.put(["a"], Buffer.from("1"));
    await table.put(["c"], Buffer.from("1"));
    catchUp();
    await table.put(["a"], Buffer.from("2"));
    await table.put(["b"], Buffer.from("1"));
    expect(text(await table.get(["a"]))).toBe("2");
    expect(text(await table.get(["b"]))).toBe("1");
    expect((await table.getMany([["b"], ["a"], ["c"], ["d"]])).map(text)).toEqual(["1", "2", "1", undefined]);
    const before = asked.leader;
    catchUp();
    expect((await table.getMany([["a"], ["b"]])).map(text)).toEqual(["2", "1"]);
    expect(text(await table.get(["a"]))).toBe("2");
    expect(asked.leader).toBe(before);
  });

  it("nor less than a batch", async () => {
    const { table, catchUp } = lagging();
    const put = (key: string, value: string) =>
      ({ kind: "put", key: [key], value: Buffer.from(value) }) as const;
    await table.batch([put("a", "1"), put("b", "1")]);
    catchUp();
    await table.batch([put("a", "2"), put("b", "2")]);
    expect(text(await table.get(["a"]))).toBe("2");
    expect((await table.getMany([["b"]])).map(text)).toEqual(["2"]);
  });

  it("may give less than others wrote, unless the read is strong", async () => {
    const { table, asked, write } = lagging();
    write("a", "1");
    expect(await table.get(["a"])).toBeUndefined();
    expect(asked.leader).toBe(0);
    expect(text(await table.get(["a"], { strong: true }))).toBe("1");
    expect((await table.getMany([["a"], ["b"]], { strong: true })).map(text)).toEqual(["1", undefined]);
  });

  it("passes over a replica that does not answer", async () => {
    const { table, asked, write, freeze } = lagging();
    write("a", "1");
    freeze();
    expect(text(await table.get(["a"]))).toBe("1");
    expect(asked).toEqual({ leader: 1, replica: 1 });
  });
});
