/**
 * What a binding must do. One component may be input (it hands events to the app), output (the app asks it to do
 * something), or both. One contract suite (test/contract/bindings.ts) runs against every binding.
 */

export type BindingMetadata = Readonly<Record<string, string>>;

/** Something that happened outside. */
export type BindingEvent = { readonly data: Uint8Array; readonly metadata: BindingMetadata };

/**
 * Resolves with the app's answer (its body) when the event was handled; rejects when it was not, and the component
 * does with the event what its own rule says. Never called after `stop` resolved.
 */
export type BindingHandler = (event: BindingEvent, signal: AbortSignal) => Promise<Uint8Array>;

export type BindingReading = {
  /** Takes no new event and waits up to `graceMs` for running handlers. */
  stop(graceMs: number): Promise<void>;
};

export type BindingRequest = {
  /** One of `operations`, checked by the block. */
  readonly operation: string;
  readonly data: Uint8Array;
  readonly metadata: BindingMetadata;
};

export type BindingResponse = { readonly data: Uint8Array; readonly metadata: BindingMetadata };

/** A failure whose metadata the client gets beside the message (the status of an HTTP server, for instance). */
export class BindingFailure extends Error {
  readonly metadata: BindingMetadata;

  constructor(message: string, metadata: BindingMetadata) {
    super(message);
    this.name = "BindingFailure";
    this.metadata = metadata;
  }
}

/** All methods may run at once and reject with a readable Error. */
export type Binding = {
  /** Operations of `invoke`, in the order in which they are told to users; empty without `invoke`. */
  readonly operations: readonly string[];
  /** Resolves with undefined when there is nothing to tell. */
  invoke?(request: BindingRequest, signal: AbortSignal): Promise<BindingResponse | undefined>;
  /** Begins to hand over events. Resolves when the source is read; survives outages of the source by itself. */
  read?(handler: BindingHandler): Promise<BindingReading>;
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where there is none. */
  awaySinceMs?(): number | undefined;
  /** Called once, after all reading has stopped. */
  close(): Promise<void>;
};
