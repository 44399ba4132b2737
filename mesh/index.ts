/** Public face of the mesh library. The protocol itself is written down in README.md. */
export { systemClock, type Clock, type Timer } from "./clock.ts";
export type { NatsAccess } from "./access.ts";
export { BodyQueue, bodyOfBytes, collectBody, failedBody } from "./body.ts";
export { destroySocket } from "./client-socket.ts";
export { MeshError, isMeshError, type MeshErrorCode } from "./errors.ts";
export { joinMesh, type JoinOptions, type JoinedMesh, type MeshCounts } from "./mesh.ts";
export * from "./types.ts";
