import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { SpanBatch } from "./batch.ts";
import type { Span } from "./span.ts";

class Names {
  readonly names: string[] = [];

  add(span: Span): void {
    this.names.push(span.name);
  }
}

function setup(answers: readonly (Error | "ok" | Promise<void>)[] = []) {
  const clock = manualClock();
  const exported: string[][] = [];
  const lost: string[] = [];
  const warned: string[] = [];
  let closed = false;
  const exporter = {
    name: "test",
    begin: () => new Names(),
    async export(spans: Names): Promise<void> {
      const answer = answers[exported.length] ?? "ok";
      exported.push(spans.names);
      if (answer instanceof Error) throw answer;
      if (answer !== "ok") await answer;
    },
    close: () => void (closed = true),
  };
  const batch = new SpanBatch(exporter, {
    limits: { maxQueue: 4, maxBatch: 2, delayMs: 100 },
    clock,
    dropped: (count, name, reason) => void lost.push(`${count} ${name} ${reason}`),
    warn: (text) => void warned.push(text),
  });
  const push = (...names: string[]): void => {
    for (const name of names) batch.push({ name } as Span);
  };
  return { batch, push, clock, exported, lost, warned, closed: () => closed };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("a batch of spans", () => {
  it("leaves after the delay, or at once when it is full", async () => {
    const { push, clock, exported } = setup();
    push("a");
    await settled();
    expect(exported).toEqual([]);
    clock.advance(100);
    await settled();
    expect(exported).toEqual([["a"]]);
    push("b", "c", "d");
    await settled();
    expect(exported).toEqual([["a"], ["b", "c"]]);
    clock.advance(100);
    await settled();
    expect(exported.at(-1)).toEqual(["d"]);
  });

  it("is bounded: what does not fit is counted and said", async () => {
    const open = Promise.withResolvers<void>();
    const { push, exported, lost, warned } = setup([open.promise]);
    push("a", "b", "c", "d", "e", "f", "g", "h");
    await settled();
    expect(exported).toEqual([["a", "b"]]);
    expect(lost).toEqual(["1 test queue", "1 test queue"]);
    expect(warned).toEqual(["1 spans for test are lost: its queue is full"]);
    open.resolve();
    await settled();
    expect(exported).toEqual([
      ["a", "b"],
      ["c", "d"],
      ["e", "f"],
    ]);
  });

  it("is tried three times", async () => {
    const away = new Error("nobody there");
    const { push, clock, exported, lost, warned } = setup([away, away, away]);
    push("a", "b");
    for (const waitMs of [1_000, 2_000, 4_000]) {
      await settled();
      clock.advance(waitMs);
    }
    await settled();
    expect(exported).toHaveLength(3);
    expect(lost).toEqual(["2 test export"]);
    expect(warned).toEqual(["2 spans for test are lost: nobody there"]);
  });

  it("is delivered at the close", async () => {
    const { batch, push, exported, closed } = setup();
    push("a");
    await batch.close(1_000);
    expect(exported).toEqual([["a"]]);
    expect(closed()).toBe(true);
  });

  it("does not hold the close for a collector that is silent", async () => {
    const { batch, push, clock, lost, closed } = setup([new Promise(() => {})]);
    push("a", "b", "c");
    const closing = batch.close(1_000);
    await settled();
    clock.advance(1_000);
    await closing;
    expect(lost).toEqual(["1 test export"]);
    expect(closed()).toBe(true);
  });
});
