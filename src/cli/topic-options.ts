/** What commands on topics have in common: which component, where NATS is, and a look at whether it is there. */
import type { Command } from "commander";
import type { Mesh, TopicRecords } from "../../mesh/index.ts";
import { CliError, textOf } from "./failure.ts";
import type { CommandHost } from "./host.ts";
import { lookForNats, withMesh } from "./nats.ts";
import { addMeshOptions, checkFlags, flagArguments, givenFlags } from "./sidecar-flags.ts";

export type TopicOptions = { readonly pubsub: string; readonly namespace: string };

export function addTopicOptions(command: Command): Command {
  command
    .option("--pubsub <name>", "name of the pubsub.nats component", "pubsub")
    .option("--namespace <name>", "namespace of its apps", "default");
  addMeshOptions(command);
  return command;
}

/** Runs the work on the stream of the component. Throws CliError when it, or NATS, is not there. */
export async function atComponent(
  command: Command,
  { env, clock }: CommandHost,
  work: (records: TopicRecords, mesh: Mesh) => Promise<void>,
): Promise<void> {
  const { pubsub, namespace } = command.opts<TopicOptions>();
  const { mesh: options } = checkFlags(["--app-id=weft-cli", ...flagArguments(givenFlags(command))], env);
  const nats = await lookForNats(options, env, clock);
  if (nats.urls.length === 0) throw new CliError(`NATS cannot be asked: ${nats.detail}`);
  await withMesh(nats, options, clock, async (mesh) => {
    const records = mesh.topicRecords([namespace, pubsub]);
    if ((await records.state()) === undefined)
      throw new CliError(
        `no app of namespace ${namespace} has used a pubsub.nats component named ${pubsub} here; ` +
          "see --pubsub and --namespace",
      );
    await work(records, mesh);
  }).catch((error: unknown) => {
    throw error instanceof CliError ? error : new CliError(textOf(error));
  });
}
