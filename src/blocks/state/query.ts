/** The language of state queries: JSON text to the filter, order and page that a store understands. */
import { unmarshalJson } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { textOf } from "../../lib/thrown.ts";
import type { StateFilter, StateQuery, WrittenStateQuery } from "./port.ts";

const json = jsonFields((message) => new Error(message));

/** Filters inside each other, and filters of one query. */
const maxDepth = 32;
const maxFilters = 1_000;

const comparisons = new Set(["EQ", "NEQ", "GT", "GTE", "LT", "LTE"]);
const orderings = new Set(["GT", "GTE", "LT", "LTE"]);

/** The query for a store that is told what to find. Throws an Error that says what cannot be read. */
export function parseQuery(text: string): StateQuery {
  return read(text, ({ filter, sort, limit, token }) => {
    const parsed = parseFilter(filter, 0, { left: maxFilters });
    return {
      ...(parsed === undefined ? {} : { filter: parsed }),
      sort: sort.map(({ key, descending }) => ({ path: pathOf(key), descending })),
      limit,
      offset: parseToken(token),
    };
  });
}

/** The query for a store that reads it itself; errors as for `parseQuery`, but any token will do. */
export function readQuery(text: string): WrittenStateQuery {
  return read(text, ({ filter, ...rest }) => {
    parseFilter(filter, 0, { left: maxFilters });
    return { filter: json.object(filter, '"filter"'), ...rest };
  });
}

type Parts = Omit<WrittenStateQuery, "filter"> & { readonly filter: unknown };

function read<T>(text: string, finish: (parts: Parts) => T): T {
  try {
    const { filter, sort, page } = json.fields(unmarshalJson(text), "the query");
    const { limit, token } = json.fields(page, '"page"');
    const count = json.integer(limit, '"limit"');
    if (count < 0) throw new Error('"limit" must not be negative');
    return finish({
      filter,
      sort: json.array(sort, '"sort"').map(readSort),
      limit: count,
      token: json.text(token, '"token"'),
    });
  } catch (cause) {
    throw new Error(`failed to parse JSON query body: ${textOf(cause)}`, { cause });
  }
}

function parseToken(token: string): number {
  if (token === "") return 0;
  if (/^\d{1,15}$/.test(token)) return Number(token);
  throw new Error('"token" must be one that an earlier answer gave');
}

function readSort(value: unknown, index: number): WrittenStateQuery["sort"][number] {
  const { key, order } = json.fields(value, `"sort" ${index}`);
  const direction = json.text(order, `"order" of "sort" ${index}`);
  if (!/^(asc|desc)?$/i.test(direction)) throw new Error(`"order" of "sort" ${index} must be ASC or DESC`);
  const name = json.text(key, `"key" of "sort" ${index}`);
  pathOf(name);
  return { key: name, descending: /desc/i.test(direction) };
}

function parseFilter(value: unknown, depth: number, budget: { left: number }): StateFilter | undefined {
  const entries = Object.entries(json.object(value, '"filter"'));
  if (entries.length === 0 && depth === 0) return undefined;
  if (entries.length !== 1) throw new Error("a filter must have exactly one operator");
  if (depth > maxDepth) throw new Error(`filters are nested deeper than ${maxDepth}`);
  if (budget.left-- === 0) throw new Error(`the query has more than ${maxFilters} filters`);
  const [operator, operand] = entries[0]!;
  if (operator === "AND" || operator === "OR") {
    const parts = json.array(operand, `operands of ${operator}`);
    if (parts.length < 2) throw new Error(`${operator} must have at least two filters`);
    const filters = parts.map((part) => parseFilter(part, depth + 1, budget)!);
    return { operator, filters };
  }
  if (operator !== "IN" && !comparisons.has(operator)) throw new Error(`unsupported filter ${operator}`);
  const members = Object.entries(json.object(operand, `the operand of ${operator}`));
  if (members.length !== 1) throw new Error(`${operator} must have exactly one property`);
  const [name, wanted] = members[0]!;
  return parseComparison(operator, pathOf(name), wanted);
}

function parseComparison(operator: string, path: readonly string[], wanted: unknown): StateFilter {
  if (operator === "IN") {
    const operands = json.array(wanted, "the operand of IN");
    if (operands.length === 0) throw new Error("IN must have at least one value");
    return { operator, path, operands };
  }
  if (orderings.has(operator) && typeof wanted !== "number")
    throw new Error(`${operator} compares numbers only, not ${JSON.stringify(wanted)}`);
  return { operator: operator as "EQ", path, operand: wanted };
}

function pathOf(key: string): string[] {
  if (key === "") throw new Error("the name of a property must not be empty");
  return key.split(".");
}
