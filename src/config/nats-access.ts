/** How a sidecar or the CLI shows NATS who it is: the options that were given, and no others. */
import type { NatsAccess } from "../../mesh/index.ts";
import type { MeshOptions } from "./options.ts";

export function natsAccess(mesh: MeshOptions): NatsAccess {
  const access = {
    credsFile: mesh.credsFile,
    nkeyFile: mesh.nkeyFile,
    user: mesh.user,
    password: mesh.password,
    tlsCa: mesh.tlsCaFile,
    tlsCert: mesh.tlsCertFile,
    tlsKey: mesh.tlsKeyFile,
  };
  return Object.fromEntries(Object.entries(access).filter(([, value]) => value !== undefined));
}
