/**
 * Certificates made at test time with openssl: an authority, and what it signs. Elliptic keys take 100 ms.
 */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { tempDir } from "./temp-dir.ts";

/** PEM texts. */
export type Certificate = { readonly certificate: string; readonly privateKey: string };

export type Authority = AsyncDisposable & {
  /** PEM of the authority's own certificate. */
  readonly root: string;
  /** File with the same, for SSL_CERT_FILE. */
  readonly rootFile: string;
  /** A certificate for servers of these names (DNS names or addresses) and for clients. */
  issue(commonName: string, names: readonly string[]): Promise<Certificate>;
};

const run = promisify(execFile);
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] as const;

export async function certificateAuthority(name = "test authority"): Promise<Authority> {
  const folder = tempDir("ca");
  const path = (file: string): string => folder.join(file);
  const request = [
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    path("ca.key"),
    "-out",
    path("ca.pem"),
    "-days",
    "2",
  ];
  await run("openssl", [...request, "-subj", `/CN=${name}`]);
  let issued = 0;
  return {
    root: await readFile(path("ca.pem"), "utf8"),
    rootFile: path("ca.pem"),
    async issue(commonName, names) {
      const id = `c${issued++}`;
      const alternatives = names.map((it) => (/^[\d.]+$|:/.test(it) ? `IP:${it}` : `DNS:${it}`)).join(",");
      await writeFile(path(`${id}.ext`), `subjectAltName=${alternatives}\n`);
      await run("openssl", [
        "req",
        ...newKey,
        "-keyout",
        path(`${id}.key`),
        "-out",
        path(`${id}.csr`),
        "-subj",
        `/CN=${commonName}`,
      ]);
      const sign = [
        "x509",
        "-req",
        "-in",
        path(`${id}.csr`),
        "-CA",
        path("ca.pem"),
        "-CAkey",
        path("ca.key"),
        "-CAcreateserial",
      ];
      await run("openssl", [...sign, "-days", "2", "-extfile", path(`${id}.ext`), "-out", path(`${id}.pem`)]);
      return {
        certificate: await readFile(path(`${id}.pem`), "utf8"),
        privateKey: await readFile(path(`${id}.key`), "utf8"),
      };
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}
