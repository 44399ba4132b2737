/** Service invocation as a building block: takes what no other HTTP route takes, and serves calls from the mesh. */
import type { HttpCall, HttpReply } from "../../api/http.ts";
import type { Block, BlockHost } from "../block.ts";
import { invokeOverHttp } from "./http.ts";
import { Invocation } from "./invocation.ts";

export type InvocationBlock = Block & {
  /** The HTTP router's answer to requests without a route. */
  readonly fallback: (call: HttpCall) => Promise<HttpReply>;
  /** Handler of calls that arrive over the mesh. */
  readonly receive: Invocation["receive"];
};

export function invocationBlock(host: BlockHost): InvocationBlock {
  const invocation = new Invocation(host);
  const { namespace, api } = host.options;
  return {
    name: "invocation",
    http: [],
    grpc: async () => (await import("./grpc.ts")).invocationMethods(invocation, namespace, api.maxBodyBytes),
    fallback: (call) => invokeOverHttp(invocation, call, namespace),
    receive: (request, caller, signal) => invocation.receive(request, caller, signal),
  };
}
