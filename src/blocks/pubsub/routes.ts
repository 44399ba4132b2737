/**
 * Which path of the app an event goes to: the first rule that takes it.
 */
import type { CloudEvent } from "./event.ts";

/** A rule as it was written. */
export type RouteRule = { readonly match: string; readonly path: string };

/** Path of the app for an event; undefined when no rule takes it. Throws when a rule cannot be evaluated. */
export type Route = (event: CloudEvent) => string | undefined;

/** A rule that this version cannot run. `rule` is its text. */
export class MatchError extends Error {
  readonly rule: string;

  constructor(rule: string, why: string) {
    super(`routing rule ${JSON.stringify(rule)} ${why}`);
    this.name = "MatchError";
    this.rule = rule;
  }
}

/** Compiles rules in their order. Throws MatchError. */
export function compileRoute(rules: readonly RouteRule[]): Route {
  const compiled = rules.map((rule) => ({ path: rule.path, matches: compileMatch(rule.match) }));
  return (event) => compiled.find((rule) => rule.matches(event))?.path;
}

/** The condition of a rule. Expressions other than the constant `true` are not run yet; misrouting would be worse. */
function compileMatch(match: string): (event: CloudEvent) => boolean {
  const text = match.trim();
  if (text === "" || text === "true") return () => true;
  throw new MatchError(match, "is not supported yet: a rule can only be empty (default) or `true`");
}
