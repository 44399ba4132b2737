/**
 * The way to the app, whatever it speaks. Blocks ask for one of the few things a sidecar wants from an app;
 * http.ts and grpc.ts beside this file carry them.
 */
import type { MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { AppHealth } from "./health.ts";

/** A callback over HTTP: whole body in, whole body out. Header names as they go on the wire. */
export type AppHttpRequest = {
  readonly verb: string;
  /** Path with leading slash, encoded; query included. */
  readonly path: string;
  /** Flat name, value list. */
  readonly headers: readonly string[];
  readonly body: Uint8Array | undefined;
};

export type AppHttpResponse = {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Buffer;
};

/** A callback over gRPC, bytes in and out. Rejects with GrpcStatusError for any status but OK. */
export type AppGrpcRequest = {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly metadata: readonly string[];
  readonly message: Uint8Array;
};

export type AppGrpcResponse = {
  readonly message: Uint8Array;
  readonly headers: readonly string[];
  readonly trailers: readonly string[];
};

export type AppChannel = {
  /** `none`: no app port was given. */
  readonly protocol: "none" | "http" | "grpc";
  /** Undefined when the app is not probed. While it is ill, calls reject with `app is not in a healthy state`. */
  readonly health?: AppHealth;
  /**
   * Resolves when the app's port accepts connections; at once without an app. Bounded only by the signal. `onAbsent` is
   * called when the first try fails.
   */
  listening(signal: AbortSignal, onAbsent?: () => void): Promise<void>;
  /** Service invocation to the app. Rejects with Error when the app cannot be reached or there is none. */
  invoke(request: MeshRequest, signal: AbortSignal): Promise<MeshResponse>;
  /** Callback of an HTTP app (subscribe list, event, binding). Rejects with Error when it cannot be reached. */
  http(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse>;
  /** Callback of a gRPC app. */
  grpc(request: AppGrpcRequest, signal: AbortSignal): Promise<AppGrpcResponse>;
  /** Ends what has no end of its own (WebSockets), at the begin of a stop. */
  endTunnels?(): void;
  /**
   * A proxied gRPC call, whatever the app's protocol and health; it takes no slot of the concurrency limit. See
   * GrpcProxy (api/grpc.ts) for the answer. Rejects only when the signal is aborted.
   */
  proxy(request: MeshRequest, signal: AbortSignal): Promise<MeshResponse>;
  close(): Promise<void>;
};
