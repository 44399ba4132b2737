/** Finding, starting and stopping NATS on this machine. Nothing here needs a connection or an environment. */
export { findNats, hidePassword, type EnsureResult, type FindOptions, type FoundNats } from "./find.ts";
export { sharedStatus, stopShared, type SharedStatus, type StopResult } from "./shared.ts";
export { hasCredentials, probe, whyUnusable, type ProbeResult } from "./probe.ts";
export { FindNatsError } from "./errors.ts";
export { minimumVersion } from "./version.ts";
export { locateHome, openHome, type Home, type HomeOptions } from "./home.ts";
export { findBinary, type Binary, type BinaryOptions } from "./binary.ts";
export type { SharedServer } from "./state.ts";
