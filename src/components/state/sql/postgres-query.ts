/** State queries as SQL over values kept as jsonb. Names and operands travel as parameters. */
import type { StateFilter, StateQuery } from "../../../blocks/state/port.ts";
import type { Statement } from "../../connect/postgres.ts";

/** Rows have `key`, `value` (text) and `etag`. Expired rows are left out. */
export function queryStatement(
  table: string,
  { filter, sort, limit, offset }: StateQuery,
): { readonly statement: Statement; readonly values: readonly unknown[] } {
  const values: unknown[] = [];
  const parameter = (value: unknown): string => `$${values.push(value)}`;
  const where = filter === undefined ? "" : ` AND ${condition(filter, parameter)}`;
  const order = sort.map(
    ({ path, descending }) => `value #> ${parameter(path)}::text[]${descending ? " DESC" : ""}`,
  );
  const text = [
    `SELECT key, value::text AS value, xmin::text AS etag FROM ${table}`,
    ` WHERE (expiredate IS NULL OR expiredate >= CURRENT_TIMESTAMP)${where}`,
    order.length === 0 ? "" : ` ORDER BY ${order.join(", ")}`,
    limit === 0 ? "" : ` LIMIT ${limit}`,
    offset === 0 ? "" : ` OFFSET ${offset}`,
  ].join("");
  return { statement: { name: "", text }, values };
}

const signs = { EQ: "=", NEQ: "<>", GT: ">", GTE: ">=", LT: "<", LTE: "<=" } as const;

function condition(filter: StateFilter, parameter: (value: unknown) => string): string {
  switch (filter.operator) {
    case "AND":
    case "OR":
      return `(${filter.filters.map((part) => condition(part, parameter)).join(` ${filter.operator} `)})`;
    case "IN":
      return `(${filter.operands.map((operand) => equality(filter.path, "=", operand, parameter)).join(" OR ")})`;
    case "EQ":
    case "NEQ":
      return equality(filter.path, signs[filter.operator], filter.operand, parameter);
    default: {
      const path = `${parameter(filter.path)}::text[]`;
      const sign = signs[filter.operator];
      const number = parameter(String(filter.operand));
      return (
        `(CASE WHEN jsonb_typeof(value #> ${path}) = 'number' ` +
        `THEN (value #>> ${path})::numeric ${sign} ${number}::numeric ELSE false END)`
      );
    }
  }
}

/** As text, as Dapr compares: 5 equals "5". */
function equality(
  path: readonly string[],
  sign: "=" | "<>",
  operand: unknown,
  parameter: (value: unknown) => string,
): string {
  const member = `value #>> ${parameter(path)}::text[]`;
  if (operand === null) return `(${member}) IS ${sign === "=" ? "" : "NOT "}NULL`;
  if (typeof operand === "string") return `(${member}) ${sign} ${parameter(operand)}`;
  return `(${member}) ${sign} (${parameter(JSON.stringify(operand))}::jsonb #>> '{}')`;
}
