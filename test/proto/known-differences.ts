// The differences between our descriptors and a published SDK that we know and accept. Each entry is one line
// of the comparison and says why; an entry that no longer applies fails the test as well.

import type { Difference } from "./facts.ts";

/** A difference that may stay, with the reason. */
export type KnownDifference = Difference & { reason: string };

/** Against dapr 1.18.3 and dapr-ext-workflow 1.18.3 for Python: both directions. */
export const knownAgainstPython: readonly KnownDifference[] = [
  {
    element: "package durabletask.protos.backend.v1",
    property: "exists",
    ours: "no",
    reference: "yes",
    reason: "how daprd stores workflows and talks to its own back end; no app or worker sends or reads it",
  },
  {
    element: "package grpc.reflection.v1",
    property: "exists",
    ours: "yes",
    reference: "no",
    reason: "the package for Python has v1alpha only, whose shape is the same; test/compat/go-grpc asks both",
  },
];

/** Against @dapr/dapr 3.18.0 for JavaScript, which carries an older API: what it has must be the same. */
export const knownAgainstJavascript: readonly KnownDifference[] = [
  "AppCallbackAlpha/OnJobEventAlpha1",
  "Dapr/ScheduleJobAlpha1",
  "Dapr/GetJobAlpha1",
  "Dapr/DeleteJobAlpha1",
  "Dapr/DeleteJobsByPrefixAlpha1",
  "Dapr/ListJobsAlpha1",
].map((method) => ({
  element: `method dapr.proto.runtime.v1.${method}`,
  property: "deprecated",
  ours: "true",
  reference: "false",
  reason: "deprecated in 1.18 by a stable form that this SDK does not have yet; only a mark, not on the wire",
}));
