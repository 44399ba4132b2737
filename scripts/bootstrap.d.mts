/** True when node_modules in `folder` holds what its package-lock.json asks for. */
export function modulesMatchLock(folder: string): boolean;
/** Path of the Node 24 to run under. Throws with what to install when there is none. */
export function findNode(folder: string): string;
