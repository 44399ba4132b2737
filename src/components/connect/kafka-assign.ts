/**
 * Who of a consumer group reads which partitions, worked out by the member that leads. The library's own way gives a
 * member partitions of topics that it does not read; an app with two subscriptions would wait for ever.
 */
import type { GroupPartitionsAssigner, GroupPartitionsAssignments } from "@platformatic/kafka";

/** Partitions of each topic go round among the members that asked for the topic. */
export const assignPartitions: GroupPartitionsAssigner = (_current, members, ownTopics, metadata) => {
  const own = [...ownTopics];
  // What is handed over are the topics of the leader alone.
  const topics = new Set([...members.values()].flatMap((member) => member.topics ?? own));
  const all: GroupPartitionsAssignments[] = [...members.keys()]
    .sort()
    .map((memberId) => ({ memberId, assignments: new Map() }));
  for (const topic of [...topics].sort()) {
    const readers = all.filter(({ memberId }) => members.get(memberId)?.topics?.includes(topic) ?? true);
    const count = metadata.topics.get(topic)?.partitionsCount ?? 0;
    for (let partition = 0; readers.length > 0 && partition < count; partition++) {
      const { assignments } = readers[partition % readers.length]!;
      const own = assignments.get(topic);
      if (own === undefined) assignments.set(topic, { topic, partitions: [partition] });
      else own.partitions.push(partition);
    }
  }
  return all;
};
