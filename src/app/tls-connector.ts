/**
 * Connections to servers outside: TCP or TLS, with one limit for dial and handshake, and the trust that was configured.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, getCACertificates, rootCertificates } from "node:tls";
import type { buildConnector } from "undici";
import type { Clock } from "../../mesh/index.ts";

export type ClientTls = {
  /** PEM; the system's roots when undefined. */
  readonly rootCA: string | undefined;
  /** Client certificate and its key, PEM. */
  readonly certificate: string | undefined;
  readonly privateKey: string | undefined;
  /** A server may start another handshake on a TLS 1.2 connection. */
  readonly renegotiation: boolean;
  /** False: the server's certificate is not looked at. */
  readonly verify: boolean;
};

/** Longest time for dial and handshake together, ms. */
const connectTimeoutMs = 15_000;

/** A connector for undici. TLS 1.2 or newer. */
export function tlsConnector(tls: ClientTls, clock: Clock): buildConnector.connector {
  return (options, callback) => {
    const { hostname, port, protocol } = options;
    const secure = protocol === "https:";
    const socket = secure
      ? dialTls(tls, hostname, port)
      : connectTcp({ host: hostname, port: Number(port || 80) });
    socket.setNoDelay(true).setKeepAlive(true, 60_000);
    const timer = clock.setTimeout(() => socket.destroy(timeoutError(socket.connecting)), connectTimeoutMs);
    const fail = (error: Error): void => {
      timer.cancel();
      callback(error, null);
    };
    socket.once("error", fail);
    socket.once(secure ? "secureConnect" : "connect", () => {
      timer.cancel();
      socket.off("error", fail);
      callback(null, socket);
    });
  };
}

function dialTls(tls: ClientTls, hostname: string, port: string): Socket {
  const socket = connectTls({
    host: hostname,
    port: Number(port || 443),
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    minVersion: "TLSv1.2",
    ALPNProtocols: ["http/1.1"],
    rejectUnauthorized: tls.verify,
    ca: tls.rootCA ?? systemRoots(),
    ...(tls.certificate === undefined || tls.privateKey === undefined
      ? {}
      : { cert: tls.certificate, key: tls.privateKey }),
  });
  if (!tls.renegotiation) socket.disableRenegotiation();
  return socket;
}

/** Node's own list stands in on a machine that has none. The first call reads files; node keeps the result. */
function systemRoots(): string[] {
  const roots = getCACertificates("system");
  return roots.length > 0 ? roots : [...rootCertificates];
}

function timeoutError(dialing: boolean): Error {
  const error: NodeJS.ErrnoException = new Error(dialing ? "i/o timeout" : "net/http: TLS handshake timeout");
  if (dialing) error.code = "ETIMEDOUT";
  return error;
}
