/**
 * Opens the components of the resource files, in file order, and holds them by category and name.
 * Which file serves a type comes from the generated list, so nobody pays for a client that is not used.
 */
import type { ComponentResource } from "../config/resources.ts";
import type { ComponentFile } from "./component.ts";

/** A component that runs. `P` is the port of its category, e.g. StateStore. */
export type OpenComponent<P = unknown> = {
  readonly resource: ComponentResource;
  readonly file: ComponentFile<P>;
  readonly port: P;
  /** All metadata after templates and secrets, names as written. */
  readonly properties: Readonly<Record<string, string>>;
};

export type OpenComponents = {
  /** Component of a category (`state`, `pubsub`, …) by its name. */
  get<P>(category: string, name: string): OpenComponent<P> | undefined;
  /** All of a category, in load order. */
  all<P>(category: string): readonly OpenComponent<P>[];
};
