/**
 * `weft dead-letters`: what could not be handled, why, and what becomes of it. Works on topics of pubsub.nats. An event
 * that is sent back is stored before its dead letter is removed, so that whatever ends this program loses nothing.
 */
import { Option, type Command } from "commander";
import type { Mesh, StoredEvent, TopicRecords } from "../../mesh/index.ts";
import { alignColumns } from "./columns.ts";
import { readDeadLetter, returned, type DeadLetter } from "./dead-letter.ts";
import { CliError, exitCodes } from "./failure.ts";
import type { CommandHost } from "./host.ts";
import { addTopicOptions, atComponent, type TopicOptions } from "./topic-options.ts";

type ListOptions = TopicOptions & { readonly output: "table" | "json"; readonly limit: number };
type ChooseOptions = TopicOptions & { readonly all?: boolean };
type RedriveOptions = ChooseOptions & { readonly toTopic?: string | true };

const pageSize = 100;
const publishTimeoutMs = 30_000;

export function addDeadLettersCommand(program: Command, host: CommandHost): void {
  const group = program
    .command("dead-letters")
    .summary("show, send back or drop events that could not be handled")
    .description("Shows why events are in a dead-letter topic of pubsub.nats, sends them back, drops them.");
  const output = new Option("-o, --output <format>", "how to print it").choices(["table", "json"]);

  const list = group
    .command("list <topic>")
    .summary("list the events of a dead-letter topic")
    .addOption(output.default("table"))
    .addOption(new Option("--limit <number>", "events at most").argParser(positive).default(100));
  addTopicOptions(list).action((topic: string) =>
    atComponent(list, host, (records) => listAll(records, topic, list.opts<ListOptions>(), host)),
  );

  const show = group
    .command("show <topic> <sequence>")
    .summary("show one event with all that is known of it");
  addTopicOptions(show).action((topic: string, sequence: string) =>
    atComponent(show, host, async (records) => {
      const [event] = await chosen(records, topic, [sequence], {});
      host.terminal.print(describe(event!));
    }),
  );

  const redrive = group
    .command("redrive <topic> [sequence...]")
    .summary("send events back to the group that could not handle them")
    .option("--all", "all that are in the topic now")
    .option("--to-topic [topic]", "to all groups of the topic they came from, or of another one");
  addTopicOptions(redrive).action((topic: string, sequences: readonly string[]) =>
    atComponent(redrive, host, (records, mesh) =>
      redriveAll(mesh, records, topic, sequences, redrive.opts<RedriveOptions>(), host),
    ),
  );

  const drop = group
    .command("drop <topic> [sequence...]")
    .summary("remove events for good")
    .option("--all", "all that are in the topic now");
  addTopicOptions(drop).action((topic: string, sequences: readonly string[]) =>
    atComponent(drop, host, (records) =>
      dropAll(records, topic, sequences, drop.opts<ChooseOptions>(), host),
    ),
  );
}

async function listAll(
  records: TopicRecords,
  topic: string,
  options: ListOptions,
  { terminal }: CommandHost,
): Promise<void> {
  const letters: DeadLetter[] = [];
  for await (const event of eventsOf(records, topic, await lastSequence(records))) {
    if (letters.length === options.limit) break;
    letters.push(readDeadLetter(event));
  }
  if (options.output === "json") return terminal.print(JSON.stringify(letters, null, 2));
  if (letters.length === 0) return terminal.print(`No events are in ${topic}.`);
  const rows = letters.map((it) => [
    String(it.sequence),
    it.time,
    it.topic ?? "?",
    it.group ?? "?",
    String(it.tries ?? "?"),
    it.id ?? "?",
    it.reason ?? "not known: it was not put here by a sidecar",
  ]);
  terminal.print(
    alignColumns([["SEQUENCE", "TIME", "FROM TOPIC", "GROUP", "TRIES", "ID", "REASON"], ...rows]),
  );
}

function describe(event: StoredEvent): string {
  const letter = readDeadLetter(event);
  const rows: [string, string][] = [
    ["Sequence", String(letter.sequence)],
    ["Dead-lettered at", letter.time],
    ["Reason", letter.reason ?? "not known"],
    ["From topic", letter.topic ?? "not known"],
    ["Group", letter.group ?? "not known"],
    ["Tries", String(letter.tries ?? "not known")],
    ["Sequence there", String(letter.originalSequence ?? "not known")],
    ...event.headers
      .filter(([name]) => !name.startsWith("Weft-Dead-"))
      .map(([name, value]): [string, string] => [name, value]),
  ];
  return `${alignColumns(rows)}\n\n${Buffer.from(event.data).toString("utf8")}`;
}

async function redriveAll(
  mesh: Mesh,
  records: TopicRecords,
  topic: string,
  sequences: readonly string[],
  options: RedriveOptions,
  { terminal }: CommandHost,
): Promise<void> {
  const events = await chosen(records, topic, sequences, options);
  const target = await mesh.topics({ name: [options.namespace, options.pubsub], maxAgeMs: 0, maxBytes: -1 });
  const known = new Map<string, boolean>();
  let count = 0;
  for (const event of events) {
    const letter = readDeadLetter(event);
    const to = typeof options.toTopic === "string" ? options.toTopic : letter.topic;
    if (to === undefined)
      throw new CliError(`event ${event.sequence} does not say where it came from: use --to-topic <topic>`);
    const onlyFor = options.toTopic === undefined ? await groupOf(records, letter, known) : undefined;
    const { headers, key } = returned(event);
    // The same id again: a redrive that was broken off between the two steps stores nothing twice for a while.
    const id = `redrive-${records.stream}-${event.sequence}`;
    await target.publish(to, event.data, { id, key, onlyFor, headers, timeoutMs: publishTimeoutMs });
    await records.remove(event.sequence);
    count++;
  }
  terminal.success(`${plural(count)} of ${topic} sent back`);
}

/** Its group, when it still takes events. */
async function groupOf(
  records: TopicRecords,
  { sequence, group, subscription }: DeadLetter,
  known: Map<string, boolean>,
): Promise<string> {
  const hint = "use --to-topic to send it to all groups of its topic";
  if (group === undefined || subscription === undefined)
    throw new CliError(`event ${sequence} does not say whose it was: ${hint}`);
  const key = JSON.stringify([group, subscription]);
  if (!known.has(key)) known.set(key, await records.hasGroup(group, subscription));
  if (known.get(key) === true) return group;
  throw new CliError(
    `event ${sequence}: there is no group ${group} on topic ${subscription} any more; ${hint}`,
  );
}

async function dropAll(
  records: TopicRecords,
  topic: string,
  sequences: readonly string[],
  options: ChooseOptions,
  { terminal }: CommandHost,
): Promise<void> {
  let count = 0;
  for (const event of await chosen(records, topic, sequences, options))
    if (await records.remove(event.sequence)) count++;
  terminal.success(`${plural(count)} of ${topic} dropped`);
}

function plural(count: number): string {
  return count === 1 ? "1 event" : `${count} events`;
}

/** The events that the user named. Throws CliError for one that is not in the topic, before anything is done. */
async function chosen(
  records: TopicRecords,
  topic: string,
  sequences: readonly string[],
  { all = false }: { readonly all?: boolean },
): Promise<StoredEvent[]> {
  if (all === sequences.length > 0)
    throw new CliError("name the sequences of events, as `list` shows them, or --all", exitCodes.usage);
  const last = await lastSequence(records);
  const events: StoredEvent[] = [];
  if (all) for await (const event of eventsOf(records, topic, last)) events.push(event);
  for (const text of sequences) {
    const sequence = positive(text);
    const [event] = await records.read(topic, { after: sequence - 1, limit: 1 });
    if (event?.sequence !== sequence) throw new CliError(`no event ${sequence} is in ${topic}`);
    events.push(event);
  }
  return events;
}

async function lastSequence(records: TopicRecords): Promise<number> {
  return (await records.state())!.lastSequence;
}

/** Those up to a sequence: what is dead-lettered anew meanwhile is left out. */
async function* eventsOf(records: TopicRecords, topic: string, last: number): AsyncGenerator<StoredEvent> {
  for (let after = 0; ;) {
    const events = await records.read(topic, { after, limit: pageSize });
    for (const event of events) {
      if (event.sequence > last) return;
      after = event.sequence;
      yield event;
    }
    if (events.length === 0) return;
  }
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new CliError(`"${text}" is no whole number above 0`, exitCodes.usage);
  return value;
}
