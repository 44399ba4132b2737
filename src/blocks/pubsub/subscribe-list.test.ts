import { describe, expect, it } from "vitest";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { readSubscribeList } from "./subscribe-list.ts";

const read = (list: unknown): unknown =>
  readSubscribeList(typeof list === "string" ? list : JSON.stringify(list), silentLog);
const base = {
  source: "PROGRAMMATIC",
  pubsub: "p",
  topic: "t",
  metadata: {},
  deadLetterTopic: "",
  bulk: undefined,
};
const names = { pubsubname: "p", topic: "t" };

describe("the list of GET /dapr/subscribe", () => {
  it.each([
    ["", []],
    [" \r\n", []],
    ["null", []],
    ["[]", []],
    [[{ ...names, route: "/a" }], [{ ...base, rules: [{ match: "", path: "/a" }] }]],
    [[{ PubSubName: "p", TOPIC: "t", Route: "/a" }], [{ ...base, rules: [{ match: "", path: "/a" }] }]],
    [
      [{ ...names, route: "/a", routes: { rules: [{ match: "true", path: "/x" }], default: "/d" } }],
      [
        {
          ...base,
          rules: [
            { match: "true", path: "/x" },
            { match: "", path: "/d" },
          ],
        },
      ],
    ],
    [[{ ...names, route: "/a", routes: { rules: null } }], [{ ...base, rules: [{ match: "", path: "/a" }] }]],
    [[{ ...names, routes: { rules: [{ path: "/x" }] } }], [{ ...base, rules: [{ match: "", path: "/x" }] }]],
    [
      [
        {
          ...names,
          route: "/a",
          metadata: { rawPayload: "true" },
          deadLetterTopic: "dead",
          bulkSubscribe: { enabled: true },
        },
      ],
      [
        {
          ...base,
          rules: [{ match: "", path: "/a" }],
          metadata: { rawPayload: "true" },
          deadLetterTopic: "dead",
          bulk: { maxMessages: 0, maxAwaitMs: 0 },
        },
      ],
    ],
    [
      [{ ...names, route: "/a", metadata: null, deadLetterTopic: null }],
      [{ ...base, rules: [{ match: "", path: "/a" }] }],
    ],
    [[{ ...names }, { ...names, topic: "u", routes: {} }], []],
  ])("%j means %j", (list, specs) => expect(read(list)).toEqual(specs));

  it.each([
    ["nope", "no JSON"],
    ["{}", "the list must be an array"],
    ["[1]", "item 0 must be an object"],
    ['[{"topic":1}]', "item 0.topic must be a string"],
    ['[{"metadata":{"rawPayload":true}}]', 'item 0.metadata "rawPayload" must be a string'],
    ['[{"routes":{"rules":{}}}]', "item 0.routes.rules must be an array"],
    ['[{"bulkSubscribe":{"enabled":"true"}}]', "item 0.bulkSubscribe.enabled must be true or false"],
    [
      '[{"bulkSubscribe":{"maxMessagesCount":"5"}}]',
      "item 0.bulkSubscribe.maxMessagesCount must be a whole number",
    ],
  ])("%s cannot be used", (list, problem) => expect(() => read(list)).toThrow(problem));
});
