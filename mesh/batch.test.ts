// Answers to a batch in an order that a real server gives only by chance.
import { describe, expect, it } from "vitest";
import { type BatchTarget, maxConflictTries, writeBatch } from "./batch.ts";
import type { Clock } from "./clock.ts";
import { type Current, nothing } from "./entry.ts";
import { MeshError } from "./errors.ts";
import { type EncodedHeaders, headerValue } from "./headers.ts";
import { type JetStream, JetStreamError } from "./jetstream.ts";
import type { TableWrite } from "./types.ts";

type Step = Error | number;

/** A target whose commits end like this; the last step repeats. Each sleep makes a second of time pass. */
function scripted(steps: Step[], read: (op: string) => Current) {
  let nowMs = 0;
  let op = "";
  const commits: string[] = [];
  const clock = {
    monotonicMs: () => nowMs,
    sleep: async () => {
      nowMs += 1_000;
    },
  } as unknown as Clock;
  const js = {
    connection: { settings: { clock, random: () => 0.5 }, checkSize: () => {}, readyWithin: async () => {} },
    publishWithoutAck: () => {},
    publish: async (_subject: string, _data: Uint8Array, headers: EncodedHeaders) => {
      const text = Buffer.from(headers.encode()).toString();
      op = headerValue(text, "Weft-Op");
      commits.push(headerValue(text, "Nats-Batch-Id"));
      const step = steps.length > 1 ? steps.shift()! : steps[0]!;
      if (typeof step === "number") return { stream: "S", seq: step };
      throw step;
    },
  };
  const target: BatchTarget = {
    js: js as unknown as JetStream,
    prefix: "$KV.b.",
    attempt: { endMs: 20_000, repeatMs: 0 },
    read: async () => read(op),
  };
  return { target, commits, passedMs: () => nowMs };
}

const writes: TableWrite[] = [
  { kind: "put", key: ["a"], value: Buffer.from("1"), expect: 5 },
  { kind: "put", key: ["b"], value: Buffer.from("1") },
];
const current = (revision: number, ...lines: string[]): Current => ({
  entry: { value: Buffer.from("x"), revision },
  revision,
  headers: `NATS/1.0\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`,
});
const unchanged = (): Current => current(5);
const open = new MeshError("interrupted", "broken");
const refused = (code: number): JetStreamError => new JetStreamError(400, code, "no");
const failure = (steps: Step[], read: (op: string) => Current): Promise<unknown> =>
  writeBatch(scripted(steps, read).target, writes).catch((error: unknown) => error);

describe("a batch", () => {
  it("has the revisions before its last", async () => {
    expect(await writeBatch(scripted([9], unchanged).target, writes)).toEqual([8, 9]);
  });

  it("takes a new batch id for each try, with the same op", async () => {
    const { target, commits } = scripted([open, refused(10176), 9], unchanged);
    expect(await writeBatch(target, writes)).toEqual([8, 9]);
    expect(new Set(commits).size).toBe(3);
    expect(new Set(commits.map((id) => id.replace(/-\d+$/, ""))).size).toBe(1);
  });

  it("conflicts with itself after a lost answer: applied", async () => {
    const mine = (op: string): Current =>
      current(8, `Weft-Op: ${op}`, "Nats-Expected-Last-Subject-Sequence: 5");
    expect(await writeBatch(scripted([open, refused(10071)], mine).target, writes)).toEqual([
      undefined,
      undefined,
    ]);
  });

  it("conflicts with others after a lost answer: a conflict if they replaced the same, else unknown", async () => {
    const same = await failure([open, refused(10071)], () =>
      current(8, "Nats-Expected-Last-Subject-Sequence: 5"),
    );
    expect(same).toMatchObject({ code: "conflict", index: 0 });
    const later = await failure([open, refused(10071)], () =>
      current(9, "Nats-Expected-Last-Subject-Sequence: 8"),
    );
    expect(later).toBe(open);
  });

  it("is refused after a lost answer: still unknown", async () => {
    expect(await failure([open, refused(10023)], unchanged)).toBe(open);
    expect(await failure([refused(10023)], unchanged)).toMatchObject({ code: "storage" });
    expect(await failure([open], unchanged)).toBe(open);
  });

  it("is known to the stream: applied once its value is seen, or when it stays known", async () => {
    let reads = 0;
    const late = scripted([open, refused(10201)], (op) =>
      ++reads < 2 ? unchanged() : current(8, `Weft-Op: ${op}`),
    );
    expect(await writeBatch(late.target, writes)).toEqual([undefined, undefined]);
    expect(reads).toBe(2);
    const replaced = scripted([open, refused(10201)], () => current(9, "Weft-Op: theirs"));
    expect(await writeBatch(replaced.target, writes)).toEqual([undefined, undefined]);
    expect(replaced.passedMs()).toBeGreaterThanOrEqual(2_000);
  });

  it("was known while on its way, and is gone with the leader: sent again", async () => {
    const { target, commits } = scripted([open, refused(10201), 9], unchanged);
    expect(await writeBatch(target, writes)).toEqual([8, 9]);
    expect(commits).toHaveLength(3);
  });

  it("meets another write in flight again and again: a conflict after some tries", async () => {
    const { target, commits } = scripted([refused(10164)], unchanged);
    await expect(writeBatch(target, writes)).rejects.toMatchObject({ code: "conflict", index: undefined });
    expect(commits).toHaveLength(maxConflictTries);
  });

  it("finds a tombstone where a key must be absent: expects that", async () => {
    const { target } = scripted([refused(10071), 9], () => ({ ...nothing, revision: 7 }));
    expect(await writeBatch(target, [{ ...writes[0]!, expect: "absent" }, writes[1]!])).toEqual([8, 9]);
  });
});
