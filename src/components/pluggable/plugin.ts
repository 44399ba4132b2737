/**
 * Calls to one plug-in on its unix socket in the name of one component. A plug-in that was started again is dialled
 * again by the next call and gets its Init first, since it remembers nothing.
 */
import {
  create,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { Clock } from "../../../mesh/index.ts";
import type { DescMethod } from "@bufbuild/protobuf";
import { grpcStatusText } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { createGrpcAppClient, type GrpcAppClient } from "../../app/grpc.ts";
import { unlessAborted } from "../../lib/unless-aborted.ts";
import type { Log } from "../../telemetry/log.ts";
import { type PluginStream, runStream } from "./stream.ts";

/** Both ways, bytes. */
const maxMessageBytes = 64 * 1024 * 1024;
/** Longest Init, and longest answer to a question that belongs to it, ms. */
export const initTimeoutMs = 5_000;

export type Unary<I extends DescMessage, O extends DescMessage> = DescMethodUnary<I, O>;

export type PluginInit = {
  readonly socketPath: string;
  /** Component name, which every call carries; undefined when the plug-in is only asked what it is. */
  readonly component: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
};

export class Plugin {
  readonly clock: Clock;
  readonly log: Log;
  readonly #client: GrpcAppClient;
  readonly #metadata: readonly string[];
  readonly #closed = new AbortController();
  #init: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Connection on which Init was made. */
  #ready = 0;
  #initialising: Promise<void> | undefined;

  constructor({ socketPath, component, clock, log }: PluginInit) {
    const address = { host: "localhost", port: 80, tls: false, socketPath };
    this.clock = clock;
    this.log = log;
    this.#client = createGrpcAppClient({ ...address, maxMessageBytes, clock, log });
    this.#metadata = component === undefined ? [] : ["x-component-instance", component];
  }

  /** Aborted when the component is closed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Makes Init now, and again on every new connection. Rejects with what the plug-in says. */
  async initialise(init: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    this.#init = init;
    await this.#initialised(signal);
  }

  /** One call, behind Init. Rejects with GrpcStatusError. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: Unary<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<MessageShape<O>> {
    await this.#initialised(signal);
    return this.bare(method, request, signal);
  }

  /** One call without Init. Rejects with GrpcStatusError. */
  async bare<I extends DescMessage, O extends DescMessage>(
    method: Unary<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<MessageShape<O>> {
    const message = toBinary(method.input, create(method.input, request));
    const call = { path: pathOf(method), metadata: this.#metadata, message };
    const answer = await this.#client.unary(call, signal).catch((error: unknown) => {
      throw inGoWords(error);
    });
    return fromBinary(method.output, answer.message);
  }

  /** A stream both ways, behind Init; resolves when it ends well and rejects with GrpcStatusError when not. */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    run: PluginStream<I, O>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#initialised(signal);
    const stream = await this.#client.open(pathOf(method), this.#metadata, signal);
    await runStream(stream, method, run, maxMessageBytes);
  }

  close(): void {
    this.#closed.abort(new Error("the component is closed"));
    this.#client.close();
  }

  async #initialised(signal: AbortSignal): Promise<void> {
    const generation = this.#client.generation();
    if (this.#init === undefined || (generation !== 0 && generation === this.#ready)) return;
    this.#initialising ??= this.#initialise(this.#init).finally(() => (this.#initialising = undefined));
    await unlessAborted(this.#initialising, signal);
  }

  /** For all who wait for it, so not bound to the signal of one of them. */
  async #initialise(init: (signal: AbortSignal) => Promise<void>): Promise<void> {
    await within(this.clock, initTimeoutMs, "the plug-in did not answer Init in time", init);
    this.#ready = this.#client.generation();
  }
}

/** Runs `work` with a signal that is aborted after `timeoutMs`. */
export async function within<T>(
  clock: Clock,
  timeoutMs: number,
  text: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const timer = clock.setTimeout(() => limit.abort(new DOMException(text, "TimeoutError")), timeoutMs);
  try {
    return await work(limit.signal);
  } finally {
    timer.cancel();
  }
}

function inGoWords(error: unknown): unknown {
  if (!(error instanceof GrpcStatusError)) return error;
  const text = grpcStatusText(error.code, error.message);
  return new GrpcStatusError(error.code, text, error.details, error.trailers);
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
