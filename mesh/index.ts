/** Public face of the mesh library. The protocol itself is written down in README.md. */
export { systemClock, type Clock, type Timer } from "./clock.ts";
export type { NatsAccess } from "./connection.ts";
export { MeshError, isMeshError, type MeshErrorCode } from "./errors.ts";
export { joinMesh, type JoinOptions } from "./mesh.ts";
export * from "./types.ts";
