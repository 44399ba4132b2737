/** The test kit: real servers, sidecars, apps and faults, each started in one line and gone with `await using`. */
export { startApp } from "./app.ts";
export type {
  App,
  AppFailure,
  AppHandler,
  AppOptions,
  AppReply,
  AppRequest,
  AppSubscription,
} from "./app.ts";
export { collectLogs, showLogsOnFailure } from "./cleanup.ts";
export { deafProxy } from "./deaf-proxy.ts";
export type { DeafProxy } from "./deaf-proxy.ts";
export { eventually } from "./eventually.ts";
export { faultProxy } from "./fault-proxy.ts";
export type { FaultProxy } from "./fault-proxy.ts";
export { withFileLock } from "./file-lock.ts";
export { grpcStatus, startGrpcApp } from "./grpc-app.ts";
export type { GrpcApp, GrpcAppHandlers, GrpcAppOptions, Recorded } from "./grpc-app.ts";
export { grpcClient } from "./grpc-client.ts";
export type { GrpcAnswer, GrpcCallOptions, GrpcClient, GrpcStream } from "./grpc-client.ts";
export { GrpcError } from "./grpc.ts";
export { tempHome } from "./home.ts";
export type { Home } from "./home.ts";
export { httpClient } from "./http.ts";
export type { HttpClient, HttpInit, HttpReply } from "./http.ts";
export { natsServerBinary } from "./nats-binary.ts";
export { startNats } from "./nats.ts";
export type { Nats, NatsOptions } from "./nats.ts";
export { checkout, nodeBinary, sidecarCommand } from "./paths.ts";
export { freePort } from "./ports.ts";
export { inheritedEnv, startProcess } from "./process.ts";
export type { ProcessOptions, RunningProcess } from "./process.ts";
export { python, runPython, startPython } from "./python.ts";
export { startSidecar } from "./sidecar.ts";
export type { Sidecar, SidecarOptions } from "./sidecar.ts";
export { tempDir } from "./temp-dir.ts";
export type { TempDir } from "./temp-dir.ts";
