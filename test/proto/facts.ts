// Flattens descriptors into named facts that can be compared one by one: every package, message, field, enum,
// enum value, service and method becomes an element with its properties as text. File names, comments and
// language options are left out: they do not reach the wire.

import { ScalarType } from "@bufbuild/protobuf";
import type { DescEnum, DescField, DescFile, DescMessage, DescService } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/** One element: the element that it is part of ("" for a package), and its properties ("number" to "1"). */
export type Fact = { owner: string; properties: Record<string, string> };

/** Facts by element name, such as "field dapr.proto.runtime.v1.Job.name". */
export type Facts = Map<string, Fact>;

/** One property of one element that is not the same on both sides. `exists` stands for the element itself. */
export type Difference = { element: string; property: string; ours: string; reference: string };

/** The facts of all files in the given packages ("" is the package of files that name none). */
export function collectFacts(files: Iterable<DescFile>, inPackage: (name: string) => boolean): Facts {
  const facts: Facts = new Map();
  for (const file of files) {
    if (!inPackage(file.proto.package)) continue;
    if (file.extensions.length > 0) throw new Error(`${file.name} has extensions: compare them in facts.ts`);
    const owner = `package ${file.proto.package}`;
    facts.set(owner, { owner: "", properties: {} });
    for (const message of file.messages) addMessage(facts, owner, message);
    for (const desc of file.enums) addEnum(facts, owner, desc);
    for (const service of file.services) addService(facts, owner, service);
  }
  return facts;
}

/**
 * Both directions: elements and properties that differ, are missing in ours, or are extra in ours. What is
 * missing as a whole is one difference, without its parts. With `olderReference` the reference may lack
 * elements, and what it has must still be the same in ours.
 */
export function compareFacts(ours: Facts, reference: Facts, olderReference = false): Difference[] {
  const differences: Difference[] = [];
  for (const [element, expected] of reference) {
    const actual = ours.get(element);
    if (actual) differences.push(...compareProperties(element, actual, expected));
    else if (expected.owner === "" || ours.has(expected.owner)) {
      differences.push({ element, property: "exists", ours: "no", reference: "yes" });
    }
  }
  if (olderReference) return differences;
  for (const [element, { owner }] of ours) {
    if (!reference.has(element) && (owner === "" || reference.has(owner))) {
      differences.push({ element, property: "exists", ours: "yes", reference: "no" });
    }
  }
  return differences;
}

function compareProperties(element: string, actual: Fact, expected: Fact): Difference[] {
  const differences: Difference[] = [];
  for (const [property, reference] of Object.entries(expected.properties)) {
    const ours = actual.properties[property] ?? "(none)";
    if (ours !== reference) differences.push({ element, property, ours, reference });
  }
  return differences;
}

function addMessage(facts: Facts, owner: string, message: DescMessage): void {
  if (message.nestedExtensions.length > 0) {
    throw new Error(`${message.typeName} has extensions: compare them in facts.ts`);
  }
  const { reservedRange, reservedName, extensionRange } = message.proto;
  const element = `message ${message.typeName}`;
  put(facts, owner, element, {
    deprecated: String(message.deprecated),
    reservedNumbers: ranges(reservedRange.map(({ start, end }) => [start, end - 1])),
    reservedNames: [...reservedName].sort().join(", "),
    extensionNumbers: ranges(extensionRange.map(({ start, end }) => [start, end - 1])),
  });
  for (const field of message.fields) {
    put(facts, element, `field ${message.typeName}.${field.name}`, fieldFacts(field));
  }
  for (const nested of message.nestedMessages) addMessage(facts, element, nested);
  for (const nested of message.nestedEnums) addEnum(facts, element, nested);
}

function fieldFacts(field: DescField): Record<string, string> {
  return {
    number: String(field.number),
    cardinality: field.fieldKind === "list" || field.fieldKind === "map" ? field.fieldKind : "singular",
    type: fieldType(field),
    oneof: field.oneof?.name ?? "",
    presence: FeatureSet_FieldPresence[field.presence] ?? String(field.presence),
    optionalKeyword: String(field.proto.proto3Optional),
    jsonName: field.jsonName,
    packed: String(field.fieldKind === "list" && field.packed),
    delimited: String("delimitedEncoding" in field && field.delimitedEncoding),
    defaultValue: field.proto.defaultValue,
    deprecated: String(field.deprecated),
  };
}

function fieldType(field: DescField): string {
  const value = field.message?.typeName ?? field.enum?.typeName ?? scalarName(field.scalar);
  return field.fieldKind === "map" ? `map<${scalarName(field.mapKey)}, ${value}>` : value;
}

function scalarName(scalar: ScalarType | undefined): string {
  const name = scalar === undefined ? undefined : ScalarType[scalar];
  if (name === undefined) throw new Error(`unknown scalar type ${scalar}`);
  return name.toLowerCase();
}

function addEnum(facts: Facts, owner: string, desc: DescEnum): void {
  const { reservedRange, reservedName, options } = desc.proto;
  const element = `enum ${desc.typeName}`;
  put(facts, owner, element, {
    open: String(desc.open),
    deprecated: String(desc.deprecated),
    allowAlias: String(options?.allowAlias ?? false),
    reservedNumbers: ranges(reservedRange.map(({ start, end }) => [start, end])),
    reservedNames: [...reservedName].sort().join(", "),
  });
  for (const value of desc.values) {
    put(facts, element, `enum value ${desc.typeName}.${value.name}`, {
      number: String(value.number),
      deprecated: String(value.deprecated),
    });
  }
}

function addService(facts: Facts, owner: string, service: DescService): void {
  const element = `service ${service.typeName}`;
  put(facts, owner, element, { deprecated: String(service.deprecated) });
  for (const method of service.methods) {
    put(facts, element, `method ${service.typeName}/${method.name}`, {
      input: method.input.typeName,
      output: method.output.typeName,
      kind: method.methodKind,
      idempotency: String(method.idempotency),
      deprecated: String(method.deprecated),
    });
  }
}

function put(facts: Facts, owner: string, element: string, properties: Fact["properties"]): void {
  if (facts.has(element)) throw new Error(`${element} is there twice`);
  facts.set(element, { owner, properties });
}

function ranges(list: number[][]): string {
  return list
    .map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`))
    .sort()
    .join(", ");
}
