/**
 * Stands in for HashiCorp Vault, which no package source of the tests carries: a process with its documented HTTP API
 * (vault.py). It is filled and steered by that API too, so a real Vault could take its place.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Agent, request } from "undici";
import type { Certificate } from "../certificates.ts";
import { checkout } from "../paths.ts";
import { type Server, askSocket, findProgram, startServer } from "./server.ts";

export type Vault = Server & {
  readonly url: string;
  /** Writes a version of a secret of the engine at `secret`, with the root token. */
  write(path: string, data: Readonly<Record<string, unknown>>): Promise<void>;
  /** A call of the API below /v1/ with the root token; rejects when it is refused. */
  call(method: "POST" | "DELETE", path: string, body?: unknown): Promise<void>;
};

export const rootToken = "root-token";

export async function startVault(certificate?: Certificate): Promise<Vault> {
  const server = await startServer({
    name: "vault",
    variable: "WEFT_TEST_VAULT",
    async prepare(folder, port) {
      const args = [join(checkout, "test/kit/servers/vault.py"), String(port), folder.join("state.json")];
      if (certificate !== undefined) {
        writeFileSync(folder.join("cert.pem"), certificate.certificate);
        writeFileSync(folder.join("key.pem"), certificate.privateKey);
        args.push(folder.join("cert.pem"), folder.join("key.pem"));
      }
      return { command: findProgram("python3", "python3", "WEFT_TEST_VAULT"), args };
    },
    ready: async (host, port) =>
      certificate === undefined
        ? (await askSocket(host, port, "GET /v1/sys/health HTTP/1.0\r\n\r\n")).includes("HTTP/1.1")
        : isUp(`https://${host}:${port}/v1/sys/health`),
  });
  const url = `${certificate === undefined ? "http" : "https"}://${server.address}`;
  const call: Vault["call"] = async (method, path, body) => {
    const { statusCode, text } = await ask(`${url}/v1/${path}`, method, body);
    if (statusCode > 299) throw new Error(`${method} ${path}: ${statusCode} ${text}`);
  };
  return { ...server, url, call, write: (path, data) => call("POST", `secret/data/${path}`, { data }) };
}

async function isUp(url: string): Promise<boolean> {
  return (await ask(url, "GET")).statusCode === 200;
}

async function ask(
  url: string,
  method: "GET" | "POST" | "DELETE",
  body?: unknown,
): Promise<{ statusCode: number; text: string }> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  try {
    const headers = { "X-Vault-Token": rootToken };
    const sent = body === undefined ? null : JSON.stringify(body);
    const { statusCode, body: answer } = await request(url, { dispatcher, method, headers, body: sent });
    return { statusCode, text: await answer.text() };
  } finally {
    await dispatcher.close();
  }
}
