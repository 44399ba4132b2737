/** Items as JSON text, in the order of members that Dapr's clients see; empty members are left out. */
import { goJson } from "../../lib/go-json.ts";
import type { ConfigurationItem } from "./port.ts";

/** An object of items by key, keys in the given order. */
export function itemsText(items: readonly (readonly [string, ConfigurationItem])[]): string {
  return `{${items.map(([key, item]) => `${goJson(key)}:${itemText(item)}`).join(",")}}`;
}

function itemText({ value, version, metadata }: ConfigurationItem): string {
  const members: string[] = [];
  if (value !== "") members.push(`"value":${goJson(value)}`);
  if (version !== "") members.push(`"version":${goJson(version)}`);
  if (Object.keys(metadata).length > 0) members.push(`"metadata":${goJson(metadata)}`);
  return `{${members.join(",")}}`;
}
