/**
 * Who we are to NATS: credentials and TLS files as the flags name them, turned into options of the client. Files are
 * read again at every connect, so that rotated credentials count without a restart.
 */
import { readFileSync } from "node:fs";
import {
  credsAuthenticator,
  nkeyAuthenticator,
  type Authenticator,
  type ConnectionOptions,
} from "@nats-io/transport-node";

/** Credentials and TLS files, as the flags name them. */
export type NatsAccess = {
  readonly credsFile?: string;
  /** File with an nkey seed. */
  readonly nkeyFile?: string;
  readonly user?: string;
  readonly password?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
};

/** Throws when a file cannot be read or makes no sense at the first time. */
export function accessOptions(access: NatsAccess): ConnectionOptions {
  const options: ConnectionOptions = {};
  if (access.credsFile !== undefined) options.authenticator = fromFile(access.credsFile, credsAuthenticator);
  else if (access.nkeyFile !== undefined)
    options.authenticator = fromFile(access.nkeyFile, seedAuthenticator);
  if (access.user !== undefined) options.user = access.user;
  if (access.password !== undefined) options.pass = access.password;
  if (access.tlsCa !== undefined || access.tlsCert !== undefined) {
    options.tls = {
      ...(access.tlsCa === undefined ? {} : { caFile: access.tlsCa }),
      ...(access.tlsCert === undefined ? {} : { certFile: access.tlsCert }),
      ...(access.tlsKey === undefined ? {} : { keyFile: access.tlsKey }),
    };
  }
  return options;
}

function seedAuthenticator(file: Buffer): Authenticator {
  return nkeyAuthenticator(Buffer.from(file.toString("utf8").trim()));
}

/**
 * A throw while the client connects would close it for good, so a file that is just being replaced counts as unchanged.
 */
function fromFile(file: string, make: (content: Buffer) => Authenticator): Authenticator {
  let good = make(readFileSync(file));
  good("");
  return (nonce) => {
    try {
      const now = make(readFileSync(file));
      const auth = now(nonce);
      good = now;
      return auth;
    } catch {
      return good(nonce);
    }
  };
}
