/** Service invocation as a building block: takes what no other HTTP route takes, and serves calls from the mesh. */
import type { ServeHandler } from "../../../mesh/index.ts";
import type { GrpcProxy } from "../../api/grpc.ts";
import type { HttpCall, HttpReply } from "../../api/http.ts";
import type { HttpEndpoint } from "../../config/http-endpoints.ts";
import type { Block, BlockHost } from "../block.ts";
import { AccessControl } from "./access-control.ts";
import { invokeOverHttp } from "./http.ts";
import { Invocation } from "./invocation.ts";
import { Peers } from "./peers.ts";
import { Proxy, proxyVerb } from "./proxy.ts";

export type InvocationBlock = Block & {
  /** The HTTP router's answer to requests without a route. */
  readonly fallback: (call: HttpCall) => Promise<HttpReply>;
  /** The gRPC server's answer to calls of services that it does not have. */
  readonly proxy: GrpcProxy;
  /** Handler of calls that arrive over the mesh. */
  readonly receive: ServeHandler;
  /** Ends connections to servers outside; when no call is under way any more. */
  readonly close: () => Promise<void>;
};

export function invocationBlock(host: BlockHost): InvocationBlock {
  const peers = new Peers(host);
  const access = new AccessControl(host.metrics);
  access.set(host.configuration.accessControl);
  const invocation = new Invocation(host, peers, access);
  const proxy = new Proxy(host, peers, access);
  let endpoints: readonly HttpEndpoint[] = [];
  const setEndpoints = (now: readonly HttpEndpoint[]): void => {
    endpoints = now;
    invocation.setEndpoints(now);
  };
  setEndpoints(host.httpEndpoints);
  return {
    name: "invocation",
    http: [],
    grpc: async () =>
      (await import("./grpc.ts")).invocationMethods(invocation, host.options.api.maxBodyBytes),
    fallback: (call) => invokeOverHttp(invocation, call),
    metadata: () => ({ httpEndpoints: endpoints.map(({ name }) => ({ name })) }),
    configurationChanged: ({ accessControl }) => access.set(accessControl),
    httpEndpointsChanged: setEndpoints,
    close: () => invocation.close(),
    proxy: (call) => proxy.call(call),
    receive: (request, caller, signal) =>
      (request.verb === proxyVerb ? proxy : invocation).receive(request, caller, signal),
  };
}
