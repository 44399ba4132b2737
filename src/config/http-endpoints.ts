/** The HTTPEndpoint resources of one sidecar, ready to be called. The TLS checks are loaded only when there is one. */
import { definitionText } from "./definition.ts";
import type { EndpointSurroundings, HttpEndpoint, HttpEndpointResource } from "./kinds/http-endpoint.ts";
import { formatProblem } from "./problem.ts";

export type { HttpEndpoint } from "./kinds/http-endpoint.ts";

/** Those of now; `warn` gets a line for each that cannot be used. */
export class HttpEndpoints {
  readonly #surroundings: EndpointSurroundings;
  readonly #warn: (text: string) => void;
  #now: readonly HttpEndpoint[] = [];
  /** What was said last. */
  #told: readonly string[] = [];

  constructor(surroundings: EndpointSurroundings, warn: (text: string) => void) {
    this.#surroundings = surroundings;
    this.#warn = warn;
  }

  get all(): readonly HttpEndpoint[] {
    return this.#now;
  }

  /**
   * Resolves with whether they are others now. What is wrong with one is told with file, line and fix; what it was
   * before, if anything, goes on. Undefined stands for resources that cannot be told apart: then all stays.
   */
  async set(resources: readonly HttpEndpointResource[] | undefined): Promise<boolean> {
    if (resources === undefined || (resources.length === 0 && this.#now.length === 0)) return false;
    const { resolveHttpEndpoint } = await import("./kinds/http-endpoint.ts");
    const endpoints: HttpEndpoint[] = [];
    const lines: string[] = [];
    for (const resource of resources) {
      const { endpoint, problems } = await resolveHttpEndpoint(resource, this.#surroundings);
      const before = this.#now.find(({ name }) => name === resource.name);
      const instead =
        endpoint === undefined && before !== undefined ? "; meanwhile it is as it was before" : "";
      lines.push(...problems.map((problem) => formatProblem(problem) + instead));
      const used = endpoint ?? before;
      if (used !== undefined) endpoints.push(used);
    }
    for (const line of lines) if (!this.#told.includes(line)) this.#warn(line);
    this.#told = lines;
    const changed = definitionText(endpoints) !== definitionText(this.#now);
    this.#now = endpoints;
    return changed;
  }
}
