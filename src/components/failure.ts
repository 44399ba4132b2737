/**
 * A component that could not be loaded, in the words that Dapr's operators search for. Place and remedy stand in
 * brackets behind the cause.
 */
import {
  componentLabel,
  CreationError,
  MetadataError,
  type ComponentResource,
} from "../config/kinds/component.ts";
import { formatPlace } from "../config/problem.ts";
import { textOf } from "../lib/thrown.ts";

/** Why it failed, as the metric `runtime_component_init_fail_total` counts it. */
export type FailureReason = "creation" | "init";

export class ComponentFailure extends Error {
  override readonly name = "ComponentFailure";
  /** Text of the line `Failed to init component …: <this>`; undefined when there is no such line. */
  readonly detail: string | undefined;
  readonly reasons: readonly FailureReason[];
  /** What it connects to may come; a component that is not known or written wrongly stays so. */
  readonly mayPass: boolean;

  private constructor(init: {
    text: string;
    detail: string | undefined;
    reasons: readonly FailureReason[];
    mayPass: boolean;
    cause: unknown;
  }) {
    super(init.text, { cause: init.cause });
    this.detail = init.detail;
    this.reasons = init.reasons;
    this.mayPass = init.mayPass;
  }

  /** The first part of the type is none that is known. */
  static incorrectType(resource: ComponentResource, remedy: string): ComponentFailure {
    const cause = `incorrect type ${resource.type} (${formatPlace(resource.typeOrigin)}; ${remedy})`;
    return new ComponentFailure({
      text: `process component ${resource.name} error: ${cause}`,
      detail: undefined,
      reasons: ["creation", "init"],
      mayPass: false,
      cause: undefined,
    });
  }

  /** Nothing serves the type and version. `cause` is Dapr's sentence. */
  static creation(resource: ComponentResource, cause: string, remedy: string): ComponentFailure {
    const text = `${cause} (${formatPlace(resource.typeOrigin)}; ${remedy})`;
    return ComponentFailure.#nested(resource, "CREATE_COMPONENT_FAILURE", text, ["creation", "init"], false);
  }

  /** Opening it failed with `thrown`; one of this class is given back as it is. */
  static init(resource: ComponentResource, thrown: unknown): ComponentFailure {
    if (thrown instanceof ComponentFailure) return thrown;
    const field = thrown instanceof MetadataError ? thrown.field : undefined;
    const said = textOf(thrown);
    const text = `${said} (${placeOf(resource, field)})`;
    const written = thrown instanceof MetadataError || /^metadata fields? /.test(said);
    const [kind, reasons]: [string, FailureReason[]] =
      thrown instanceof CreationError
        ? ["CREATE_COMPONENT_FAILURE", ["creation", "init"]]
        : ["INIT_COMPONENT_FAILURE", ["init"]];
    return ComponentFailure.#nested(resource, kind, text, reasons, !written, thrown);
  }

  /** `open` took longer than the init timeout. */
  static timeout(resource: ComponentResource): ComponentFailure {
    const { initTimeoutMs } = resource;
    const remedy = "raise spec.initTimeout, or see whether what it connects to answers";
    const text =
      `it did not open within ${initTimeoutMs} ms (${placeOf(resource)}; ${remedy})\n` +
      `init timeout for component ${componentLabel(resource)}`;
    return ComponentFailure.#nested(resource, "INIT_COMPONENT_FAILURE", text, ["init"], true);
  }

  static #nested(
    resource: ComponentResource,
    kind: string,
    text: string,
    reasons: readonly FailureReason[],
    mayPass: boolean,
    cause?: unknown,
  ): ComponentFailure {
    const what = `initialization error occurred for ${componentLabel(resource)}`;
    const detail = `[${kind}]: ${what}: ${text}`;
    const processed = `process component ${resource.name} error: [INIT_COMPONENT_FAILURE]: ${what}: ${detail}`;
    return new ComponentFailure({ text: processed, detail, reasons, mayPass, cause });
  }
}

/** `store.yaml:3`: the line of a metadata field, else that of the resource. */
export function placeOf(resource: ComponentResource, field?: string): string {
  const item = resource.metadata.find(({ name }) => name.toLowerCase() === field?.toLowerCase());
  return formatPlace(item?.origin ?? resource.origin);
}
