/** What a Vault store shows and trusts: its token and the certificates, read again at each use where they are files. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MetadataError } from "../component.ts";
import type { TlsChoice } from "../connect/json-api.ts";

/** Fields of the component's metadata. */
export type TokenFields = {
  readonly vaultToken: string | undefined;
  readonly vaultTokenMountPath: string | undefined;
};
export type TlsFields = {
  readonly caPem: string | undefined;
  readonly caPath: string | undefined;
  readonly caCert: string | undefined;
  readonly tlsServerName: string | undefined;
  readonly skipVerify: boolean;
};

/** The token as it is now. Throws at once when there is not exactly one place for it. */
export function tokenSource({
  vaultToken = "",
  vaultTokenMountPath = "",
}: TokenFields): () => Promise<string> {
  if ((vaultToken === "") === (vaultTokenMountPath === "")) {
    const given = vaultToken === "" ? "neither is given" : "both are given";
    const message = `exactly one of "vaultToken" and "vaultTokenMountPath" must be set, but ${given}`;
    throw new MetadataError("vaultToken", message);
  }
  if (vaultToken !== "") {
    const token = checkToken(vaultToken, "vaultToken", "it");
    return () => Promise.resolve(token);
  }
  return async () => {
    const text = await readText("vaultTokenMountPath", vaultTokenMountPath);
    return checkToken(text.trim(), "vaultTokenMountPath", vaultTokenMountPath);
  };
}

function checkToken(token: string, field: string, place: string): string {
  if (/^[!-~]+$/.test(token)) return token;
  throw new MetadataError(field, `metadata field "${field}": ${place} holds no token of Vault`);
}

/** What Vault is trusted by, as the files say now. Rejects with MetadataError. */
export async function tlsOf(metadata: TlsFields): Promise<TlsChoice> {
  const { tlsServerName: servername = "", skipVerify } = metadata;
  const ca = await authorities(metadata);
  return {
    ...(ca !== undefined && { ca }),
    ...(servername !== "" && { servername }),
    ...(skipVerify && { rejectUnauthorized: false }),
  };
}

async function authorities({ caPem = "", caPath = "", caCert = "" }: TlsFields): Promise<string | undefined> {
  if (caPem !== "") return checkPem(caPem, "caPem", "it");
  if (caPath !== "") {
    const entries = await readdir(caPath, { withFileTypes: true }).catch((cause: unknown) => {
      throw unreadable("caPath", caPath, cause);
    });
    const [first] = entries
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name)
      .toSorted();
    const path = join(caPath, first ?? "");
    return checkPem(first === undefined ? "" : await readText("caPath", path), "caPath", path);
  }
  return caCert === "" ? undefined : checkPem(await readText("caCert", caCert), "caCert", caCert);
}

function checkPem(text: string, field: string, place: string): string {
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new MetadataError(field, `metadata field "${field}": ${place} holds no certificate in PEM form`);
}

function readText(field: string, path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: unknown) => {
    throw unreadable(field, path, cause);
  });
}

function unreadable(field: string, path: string, cause: unknown): MetadataError {
  const text = `metadata field "${field}": ${path} cannot be read: ${(cause as Error).message}`;
  return new MetadataError(field, text, cause);
}
