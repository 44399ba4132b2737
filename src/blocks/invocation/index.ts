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
  /** Ends connections to servers outside; when no call is under way any more. */
  readonly close: () => Promise<void>;
};

export function invocationBlock(host: BlockHost): InvocationBlock {
  const invocation = new Invocation(host);
  return {
    name: "invocation",
    http: [],
    grpc: async () =>
      (await import("./grpc.ts")).invocationMethods(invocation, host.options.api.maxBodyBytes),
    fallback: (call) => invokeOverHttp(invocation, call),
    metadata: () => ({ httpEndpoints: host.httpEndpoints.map(({ name }) => ({ name })) }),
    close: () => invocation.close(),
    receive: (request, caller, signal) => invocation.receive(request, caller, signal),
  };
}
