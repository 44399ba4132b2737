import { expect, test } from "vitest";
import {
  isAtLeast,
  minimumVersion,
  moduleVersion,
  readVersion,
  releaseVersion,
  wheelVersion,
} from "./version.ts";

test.each([
  ["nats-server: v2.15.1", "2.15.1"],
  ["2.14.0-RC.1", "2.14.0"],
  ["nats-server: v2.9", undefined],
  ["", undefined],
])("the version in %j is %s", (text, version) => {
  expect(readVersion(text)).toBe(version);
});

test.each([
  ["2.14.0", true],
  ["2.14.0-RC.2", true],
  ["2.15.1", true],
  ["10.0.0", true],
  ["2.13.99", false],
  ["2.9.10", false],
  ["1.20.0", false],
  ["", false],
])("%s is new enough: %s", (version, enough) => {
  expect(isAtLeast(version, "2.14.0")).toBe(enough);
});

test.each([releaseVersion, wheelVersion, moduleVersion])("%s, which is fetched, is new enough", (version) => {
  expect(readVersion(version)).toBe(version);
  expect(isAtLeast(version, minimumVersion)).toBe(true);
});
