import type { Msg } from "@nats-io/transport-node";
import { describe, expect, it } from "vitest";
import { systemClock } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError } from "./errors.ts";
import { JetStream, JetStreamError } from "./jetstream.ts";
import type { Mux, MuxOptions, Waiting } from "./mux.ts";

type Play = (read: (message: Msg) => unknown) => unknown;

/** A JetStream whose requests are answered by these, one after the other. */
function scripted(...plays: Play[]): { js: JetStream; sent: string[] } {
  const sent: string[] = [];
  const connection = {
    connected: true,
    closed: false,
    settings: { clock: systemClock },
  } as unknown as MeshConnection;
  const request = async (
    subject: string,
    _payload: Uint8Array,
    options: MuxOptions<unknown>,
  ): Promise<unknown> => {
    sent.push(subject);
    const step = plays.shift()!((message) => options.read(message, {} as Waiting));
    return (step as { done: unknown }).done;
  };
  return { js: new JetStream(connection, { request } as unknown as Mux), sent };
}

function message(status: string, body: string, ...lines: string[]): Msg {
  const head = Buffer.from(`NATS/1.0${status}\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`);
  const bytes = Buffer.concat([head, Buffer.from(body)]);
  return { _rdata: bytes, _msg: { hdr: head.length }, data: bytes.subarray(head.length) } as unknown as Msg;
}

const soon = (repeatMs: number) => ({ endMs: systemClock.monotonicMs() + 20_000, repeatMs });
const fails =
  (error: Error): Play =>
  () => {
    throw error;
  };
const unknown = new MeshError("interrupted", "broken");
const refused =
  (code: number, status = 400): Play =>
  (read) =>
    read(message("", JSON.stringify({ error: { code: status, err_code: code, description: "no" } })));
const stored: Play = (read) => read(message("", '{"stream":"S","seq":4,"duplicate":true}'));

describe("an answer of JetStream", () => {
  it("to a publish is an acknowledgement, an error with its number, or protocol", async () => {
    const publish = (...plays: Play[]) =>
      scripted(...plays).js.publish("s", Buffer.alloc(0), undefined, soon(0));
    expect(await publish(stored)).toMatchObject({ seq: 4, duplicate: true });
    await expect(publish(refused(10071))).rejects.toMatchObject({ jsCode: 10071, status: 400 });
    for (const junk of ["junk", "{}", "[]", '"x"', "null"]) {
      await expect(publish((read) => read(message("", junk)))).rejects.toMatchObject({ code: "protocol" });
    }
    await expect(publish((read) => read(message(" 400 Bad", "")))).rejects.toBeInstanceOf(JetStreamError);
  });

  it("in parts that breaks off is not mixed with the next try's", async () => {
    const part = (seq: number): Msg => message("", "v", `Nats-Sequence: ${seq}`);
    const { js } = scripted(
      (read) => {
        read(part(1));
        throw unknown;
      },
      (read) => {
        read(part(2));
        return read(message(" 204 EOB", "", "Nats-Num-Pending: 3"));
      },
    );
    const { messages, pending } = await js.directGetMany("S", {}, soon(Number.POSITIVE_INFINITY));
    expect(messages.map(({ headers }) => /Sequence: (\d)/.exec(headers)?.[1])).toEqual(["2"]);
    expect(pending).toBe(3);
  });
});

describe("another try", () => {
  const tries = async (first: Play, repeatMs: number): Promise<number> => {
    const { js, sent } = scripted(first, stored);
    await js.publish("s", Buffer.alloc(0), undefined, soon(repeatMs)).catch(() => {});
    return sent.length;
  };

  it.each([
    ["nobody answered", (read: (message: Msg) => unknown) => read(message(" 503", "")), 2, 2],
    ["not sent", fails(new MeshError("disconnected", "away")), 2, 2],
    ["outcome unknown", fails(unknown), 1, 2],
    ["no answer in time", fails(new MeshError("timeout", "late")), 1, 2],
    ["no leader now", refused(10008, 503), 2, 2],
    ["storage is full", refused(10023, 503), 1, 1],
    ["the same id is being stored", refused(10158, 409), 1, 2],
    ["a guard failed", refused(10071), 1, 1],
    ["the stream is not there, and nothing can make it", refused(10059, 404), 1, 1],
    ["too large", fails(new MeshError("too-large", "large")), 1, 1],
    ["the caller gave up", fails(new MeshError("cancelled", "enough")), 1, 1],
  ] as [string, Play, number, number][])(
    "%s: %i if it must not be repeated, %i if it may",
    async (_name, error, never, may) => {
      expect(await tries(error, 0)).toBe(never);
      expect(await tries(error, 10_000)).toBe(may);
    },
  );

  it("waits for what is missing to be made, and for no longer than there is time", async () => {
    const made: number[] = [];
    const { js } = scripted((read) => read(message(" 503", "")), stored);
    const onMissing = async ({ endMs }: { endMs: number }): Promise<void> => void made.push(endMs);
    await js.publish("s", Buffer.alloc(0), undefined, { ...soon(0), onMissing });
    expect(made).toHaveLength(1);
    const never: Play = (read) => read(message(" 503", ""));
    const { js: silent, sent } = scripted(...Array.from({ length: 100 }, () => never));
    const endMs = systemClock.monotonicMs() + 200;
    await expect(
      silent.publish("s", Buffer.alloc(0), undefined, { endMs, repeatMs: 0 }),
    ).rejects.toMatchObject({
      code: "storage",
      message: expect.stringContaining("JetStream does not answer"),
    });
    expect(sent.length).toBeLessThan(6);
  });
});
