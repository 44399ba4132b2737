// Holds our .proto files against published SDKs, fact by fact: names, numbers, types, presence, JSON names,
// enum values, methods. Also checks that proto/gen is what the .proto files give.

import type { DescFile } from "@bufbuild/protobuf";
import { beforeAll, expect, test } from "vitest";
import { findStale } from "../../proto/generate.ts";
import { collectFacts, compareFacts } from "./facts.ts";
import type { Difference, Facts } from "./facts.ts";
import { knownAgainstJavascript, knownAgainstPython } from "./known-differences.ts";
import type { KnownDifference } from "./known-differences.ts";
import { javascriptSdkFiles, ourFiles, pythonSdkFiles } from "./sources.ts";

const installTimeoutMs = 300_000;
const apiPackages = new Set(["dapr.proto.common.v1", "dapr.proto.runtime.v1"]);
const notWellKnown = (name: string): boolean => name !== "google.protobuf";
/** No Python package carries the services of plug-ins (test/integration/pluggable speaks them with Go's), nor ours. */
const inPython = (name: string): boolean =>
  notWellKnown(name) && name !== "dapr.proto.components.v1" && !name.startsWith("weft.");
const isApi = (name: string): boolean => apiPackages.has(name);

let files: DescFile[];
let ours: Facts;

beforeAll(async () => {
  files = await ourFiles();
  ours = collectFacts(files, inPython);
});

test("generated code is up to date", () => {
  expect(findStale(), "run node proto/generate.ts").toEqual([]);
});

test("same as the Python SDK of 1.18, in both directions", { timeout: installTimeoutMs }, () => {
  const reference = collectFacts(pythonSdkFiles().files, notWellKnown);
  expect(unexplained(compareFacts(ours, reference), knownAgainstPython)).toEqual([]);
});

test("contains all that the JavaScript SDK uses, unchanged", () => {
  const reference = collectFacts(javascriptSdkFiles().files, isApi);
  expect([...reference.keys()]).toContain("service dapr.proto.runtime.v1.Dapr");
  const api = collectFacts(files, isApi);
  expect(unexplained(compareFacts(api, reference, true), knownAgainstJavascript)).toEqual([]);
});

/** The lines to fail with: differences not in the list, and entries of the list that no longer apply. */
function unexplained(differences: Difference[], known: readonly KnownDifference[]): string[] {
  const line = (d: Difference): string =>
    `${d.element}: ${d.property} is ${d.ours}, reference ${d.reference}`;
  const found = new Set(differences.map(line));
  const expected = new Set(known.map(line));
  return [
    ...[...found].filter((text) => !expected.has(text)),
    ...[...expected].filter((text) => !found.has(text)).map((text) => `no longer applies: ${text}`),
  ];
}
