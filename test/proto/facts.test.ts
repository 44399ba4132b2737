// The comparison must notice every kind of change: each row alters one descriptor and states the exact
// difference that has to come out.

import { clone, create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  OneofDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";
import type { DescriptorProto, FileDescriptorProto, ServiceDescriptorProto } from "@bufbuild/protobuf/wkt";
import type { DescFile } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { file_dapr_proto_common_v1_common } from "../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { file_dapr_proto_runtime_v1_appcallback } from "../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { collectFacts, compareFacts } from "./facts.ts";
import type { Facts } from "./facts.ts";

const pkg = "dapr.proto.runtime.v1";

type Row = {
  change: string;
  alter: (file: FileDescriptorProto) => void;
  expected: string[];
};

const rows: Row[] = [
  { change: "nothing", alter: () => {}, expected: [] },
  {
    change: "field number",
    alter: (file) => void (field(file, "TopicRule", "path").number = 3),
    expected: [`field ${pkg}.TopicRule.path: number 3, not 2`],
  },
  {
    change: "field name",
    alter: (file) => void (field(file, "TopicRule", "path").name = "route"),
    expected: [
      `field ${pkg}.TopicRule.path: exists no, not yes`,
      `field ${pkg}.TopicRule.route: exists yes, not no`,
    ],
  },
  {
    change: "scalar type",
    alter: (file) =>
      void (field(file, "BindingEventRequest", "data").type = FieldDescriptorProto_Type.STRING),
    expected: [`field ${pkg}.BindingEventRequest.data: type string, not bytes`],
  },
  {
    change: "message type",
    alter: (file) => void (field(file, "TopicSubscription", "routes").typeName = `.${pkg}.TopicRule`),
    expected: [`field ${pkg}.TopicSubscription.routes: type ${pkg}.TopicRule, not ${pkg}.TopicRoutes`],
  },
  {
    change: "cardinality",
    alter: (file) => void (field(file, "TopicRoutes", "rules").label = FieldDescriptorProto_Label.OPTIONAL),
    expected: [
      `field ${pkg}.TopicRoutes.rules: cardinality singular, not list`,
      `field ${pkg}.TopicRoutes.rules: presence EXPLICIT, not IMPLICIT`,
    ],
  },
  {
    change: "map value",
    alter: (file) => {
      const entry = message(file, "TopicSubscription").nestedType[0];
      pick(entry?.field, "value").type = FieldDescriptorProto_Type.BYTES;
    },
    expected: [`field ${pkg}.TopicSubscription.metadata: type map<string, bytes>, not map<string, string>`],
  },
  {
    change: "oneof",
    alter: (file) =>
      void (pick(message(file, "TopicEventBulkRequestEntry").oneofDecl, "event").name = "what"),
    expected: ["bytes", "cloud_event"].map(
      (name) => `field ${pkg}.TopicEventBulkRequestEntry.${name}: oneof what, not event`,
    ),
  },
  {
    change: "JSON name",
    alter: (file) => void (field(file, "TopicSubscription", "pubsub_name").jsonName = "pubsubname"),
    expected: [`field ${pkg}.TopicSubscription.pubsub_name: jsonName pubsubname, not pubsubName`],
  },
  {
    change: "optional keyword",
    alter: (file) => {
      const desc = message(file, "TopicRule");
      desc.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: "_path" }));
      Object.assign(field(file, "TopicRule", "path"), { proto3Optional: true, oneofIndex: 0 });
    },
    expected: [
      `field ${pkg}.TopicRule.path: presence EXPLICIT, not IMPLICIT`,
      `field ${pkg}.TopicRule.path: optionalKeyword true, not false`,
    ],
  },
  {
    change: "enum value number",
    alter: (file) => void (pick(pick(message(file, "TopicEventResponse").enumType).value, "DROP").number = 7),
    expected: [`enum value ${pkg}.TopicEventResponse.TopicEventResponseStatus.DROP: number 7, not 2`],
  },
  {
    change: "method output",
    alter: (file) =>
      void (pick(service(file).method, "OnTopicEvent").outputType = `.${pkg}.JobEventResponse`),
    expected: [
      `method ${pkg}.AppCallback/OnTopicEvent: output ${pkg}.JobEventResponse, not ${pkg}.TopicEventResponse`,
    ],
  },
  {
    change: "streaming",
    alter: (file) => void (pick(service(file).method, "OnTopicEvent").serverStreaming = true),
    expected: [`method ${pkg}.AppCallback/OnTopicEvent: kind server_streaming, not unary`],
  },
  {
    change: "method missing",
    alter: (file) => void service(file).method.pop(),
    expected: [`method ${pkg}.AppCallback/OnJobEvent: exists no, not yes`],
  },
  {
    change: "service missing",
    alter: (file) => void file.service.pop(),
    expected: [`service ${pkg}.AppCallbackAlpha: exists no, not yes`],
  },
];

describe("one altered descriptor", () => {
  const original = facts(() => {});
  test.each(rows)("$change", ({ alter, expected }) => {
    const found = compareFacts(facts(alter), original);
    const lines = found.map((d) => `${d.element}: ${d.property} ${d.ours}, not ${d.reference}`);
    expect(lines).toEqual(expected);
  });
});

test("an older reference may lack elements, not contradict", () => {
  const older = facts((file) => void service(file).method.pop());
  expect(
    compareFacts(
      facts(() => {}),
      older,
      true,
    ),
  ).toEqual([]);
  expect(
    compareFacts(
      older,
      facts(() => {}),
      true,
    ),
  ).toHaveLength(1);
});

/** The facts of appcallback.proto after `alter` has worked on a copy of its descriptor. */
function facts(alter: (file: FileDescriptorProto) => void): Facts {
  const files: FileDescriptorProto[] = [];
  const add = (file: DescFile): void => {
    if (files.some((known) => known.name === file.proto.name)) return;
    for (const imported of file.dependencies) add(imported);
    files.push(clone(FileDescriptorProtoSchema, file.proto));
  };
  add(file_dapr_proto_common_v1_common);
  add(file_dapr_proto_runtime_v1_appcallback);
  alter(pick(files, "dapr/proto/runtime/v1/appcallback.proto"));
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: files }));
  return collectFacts(registry.files, (name) => name === pkg);
}

function message(file: FileDescriptorProto, name: string): DescriptorProto {
  return pick(file.messageType, name);
}

function field(file: FileDescriptorProto, of: string, name: string): DescriptorProto["field"][number] {
  return pick(message(file, of).field, name);
}

function service(file: FileDescriptorProto): ServiceDescriptorProto {
  return pick(file.service, "AppCallback");
}

/** The element of that name, or the first. Throws when the fixture has no such element. */
function pick<T extends { name: string }>(list: T[] | undefined, name = list?.[0]?.name): T {
  const found = list?.find((element) => element.name === name);
  if (!found) throw new Error(`no ${name} to alter`);
  return found;
}
