/** `weft groups`: where the consumer groups of a pubsub.nats component stand, and how to set one back or on. */
import type { Command } from "commander";
import type { TopicStart } from "../../mesh/index.ts";
import { parseGoDuration } from "../lib/duration.ts";
import { alignColumns } from "./columns.ts";
import { CliError, exitCodes } from "./failure.ts";
import type { CommandHost } from "./host.ts";
import { addTopicOptions, atComponent } from "./topic-options.ts";

export function addGroupsCommand(program: Command, host: CommandHost): void {
  const groups = program
    .command("groups")
    .summary("show and move consumer groups")
    .description("The consumer groups of a pubsub.nats component: where they stand, and how to move one.");

  const list = groups.command("list").summary("list the groups and how much waits for each");
  addTopicOptions(list).action(() =>
    atComponent(list, host, async (records) => {
      const rows = (await records.groups()).map((it) => [
        it.consumer,
        topicsText(it.topics),
        String(it.doneSequence),
        String(it.underWay),
        String(it.waiting),
      ]);
      if (rows.length === 0) return host.terminal.print("There are no groups.");
      host.terminal.print(alignColumns([["CONSUMER", "TOPIC", "DONE TO", "UNDER WAY", "WAITING"], ...rows]));
    }),
  );

  const move = groups
    .command("move <group> <topic> <to>")
    .summary("set a group to another place; its members go on from there")
    .description(
      "Sets a group to another place. <group>: the app id, or the consumerID; <topic>: as subscribed to; " +
        "<to>: all, new, last, a sequence, a time (2030-01-31T08:00:00Z), or a time back (1h, 90m).",
    );
  addTopicOptions(move).action((group: string, topic: string, to: string) =>
    atComponent(move, host, async (records) => {
      const sequence = await records.moveGroup(group, topic, readPlace(to, host.clock.nowMs()));
      if (sequence === undefined)
        throw new CliError(
          `there is no group ${group} on topic ${topic}; \`weft groups list\` shows what there is`,
        );
      host.terminal.success(`group ${group} of ${topic} goes on with event ${sequence}`);
    }),
  );
}

/** Most topics of a consumer that are named. */
const maxNamed = 3;

function topicsText(topics: readonly string[]): string {
  if (topics.length === 0) return "?";
  return topics.length <= maxNamed ? topics.join(", ") : `${topics.length} topics`;
}

function readPlace(text: string, nowMs: number): TopicStart {
  if (text === "all" || text === "new" || text === "last") return text;
  if (/^[1-9]\d{0,14}$/.test(text)) return { sequence: Number(text) };
  const timeMs = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : nowMs - timeBack(text);
  if (timeMs >= 0 && timeMs <= nowMs) return { timeMs };
  throw new CliError(
    `"${text}" is no place: use all, new, last, a sequence, a time (2030-01-31T08:00:00Z), or 1h for an hour back`,
    exitCodes.usage,
  );
}

function timeBack(text: string): number {
  try {
    return Math.abs(parseGoDuration(text));
  } catch {
    return Number.NaN;
  }
}
