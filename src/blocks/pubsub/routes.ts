/**
 * Which path of the app an event goes to: the first rule that takes it. Rules are CEL expressions over `event`, the
 * decoded CloudEvent.
 */
import type { CelExpression } from "../../lib/cel.ts";
import type { CloudEvent } from "./event.ts";

/** A rule as it was written. */
export type RouteRule = { readonly match: string; readonly path: string };

/** Path of the app for an event; undefined when no rule takes it. Throws when a rule cannot be evaluated. */
export type Route = (event: CloudEvent) => string | undefined;

/** A rule that is no expression. */
export class MatchError extends Error {
  constructor(rule: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`routing rule ${JSON.stringify(rule)} is no CEL expression: ${why}`, { cause });
    this.name = "MatchError";
  }
}

/** Compiles rules in their order; CEL is loaded only when a rule needs it. Rejects with MatchError. */
export async function compileRoute(rules: readonly RouteRule[]): Promise<Route> {
  const compile = rules.every(({ match }) => isAlways(match)) ? undefined : await celOfEvents();
  const compiled = rules.map(({ match, path }) => {
    if (isAlways(match) || compile === undefined) return { path, matches: () => true };
    return { path, matches: compileMatch(match, compile) };
  });
  return (event) => compiled.find((rule) => rule.matches(event))?.path;
}

function isAlways(match: string): boolean {
  const text = match.trim();
  return text === "" || text === "true";
}

async function celOfEvents(): Promise<(text: string) => CelExpression> {
  const { celCompiler } = await import("../../lib/cel.ts");
  return celCompiler({ event: "dyn" });
}

/** An expression that fails, or gives no boolean, is a failure of the event: guessing would misroute it. */
function compileMatch(
  match: string,
  compile: (text: string) => CelExpression,
): (event: CloudEvent) => boolean {
  let expression: CelExpression;
  try {
    expression = compile(match);
  } catch (cause) {
    throw new MatchError(match, cause);
  }
  return (event) => {
    const value = run(expression, match, event);
    if (typeof value === "boolean") return value;
    throw new Error(
      `routing rule ${JSON.stringify(match)} gives no boolean but a value of type ${typeof value}`,
    );
  };
}

function run(expression: CelExpression, match: string, event: CloudEvent): unknown {
  try {
    return expression.run({ event });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`routing rule ${JSON.stringify(match)} cannot be evaluated: ${why}`, { cause });
  }
}
