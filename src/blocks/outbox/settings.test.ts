import { expect, it } from "vitest";
import { outboxProblem, outboxSettings } from "./settings.ts";

const app = { namespace: "prod", appId: "shop" };
const both = { outboxPublishPubsub: "bus", outboxPublishTopic: "orders" };
const port = { transact: () => {} };

it("reads where events wait and where they go", () => {
  expect(outboxSettings({ properties: both }, app)).toEqual({
    publishPubsub: "bus",
    publishTopic: "orders",
    waitPubsub: "bus",
    waitTopic: "prodshopordersoutbox",
    discardsMissing: false,
  });
  const more = { ...both, outboxPubsub: "other", outboxDiscardWhenMissingState: "ON" };
  expect(outboxSettings({ properties: more }, app)).toMatchObject({
    waitPubsub: "other",
    discardsMissing: true,
  });
});

it.each([
  [{ outboxPublishPubsub: "bus" }, port, "metadata outboxPublishPubsub needs outboxPublishTopic too"],
  [{ outboxPublishTopic: "t" }, port, "metadata outboxPublishTopic needs outboxPublishPubsub too"],
  [{ ...both, outboxpubsub: "x" }, port, "metadata outboxPubsub must be written exactly so"],
  [both, {}, "this store has no transactions"],
  [both, port, undefined],
  [{}, {}, undefined],
])("tells what is wrong with %j", (properties, of, problem) => {
  expect(outboxProblem({ properties, port: of })).toBe(problem);
});
