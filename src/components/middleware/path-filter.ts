/** Regular expressions in the metadata of middlewares, and those that limit one to some paths. */
import type { Middleware } from "../../middleware/port.ts";

/** Throws an Error that names the field and what is wrong with the expression. */
export function readPattern(field: string, text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`metadata field "${field}": ${reason}; write a regular expression such as .*/orders/.*`, {
      cause,
    });
  }
}

/** A middleware for the paths that `pathFilter` matches, for all without one. */
export function onPaths(pathFilter: string | undefined, middleware: Middleware): Middleware {
  if (pathFilter === undefined || pathFilter === "") return middleware;
  const pattern = readPattern("pathFilter", pathFilter);
  return {
    handle: (request, next) => (pattern.test(request.path) ? middleware.handle(request, next) : next()),
    close: () => middleware.close(),
  };
}
