// A small identity provider on loopback: OpenID Connect discovery, keys, and a token endpoint for two flows.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";

/** One request of the token endpoint. */
export type TokenRequest = {
  readonly form: Readonly<Record<string, string>>;
  readonly authorization: string | undefined;
};

export type IdentityServer = AsyncDisposable & {
  readonly url: string;
  /** Requests of the token endpoint, oldest first. */
  readonly tokenRequests: readonly TokenRequest[];
  /** Answers the token endpoint; a token `token-<n>` of 3600 s until it is set. */
  answer: (request: TokenRequest) => { readonly status?: number; readonly body: unknown };
  /** A token of this issuer with these claims over the usual ones. */
  sign(
    claims?: JWTPayload,
    seconds?: { readonly issuedAgo?: number; readonly life?: number },
  ): Promise<string>;
};

export async function startIdentityServer(): Promise<IdentityServer> {
  const tokenRequests: TokenRequest[] = [];
  const kid = "the-key";
  const { publicKey, privateKey } = await generateKeyPair("RS256", { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid, use: "sig" };
  const answerOf = async (incoming: IncomingMessage): Promise<{ status?: number; body: unknown }> => {
    switch (incoming.url) {
      case "/.well-known/openid-configuration":
        return { body: { issuer: server.url, jwks_uri: `${server.url}/keys` } };
      case "/keys":
        return { body: { keys: [jwk] } };
      case "/token": {
        const form = Object.fromEntries(new URLSearchParams(await text(incoming)));
        const request = { form, authorization: incoming.headers.authorization };
        tokenRequests.push(request);
        return server.answer(request);
      }
      default:
        return { status: 404, body: {} };
    }
  };
  const http = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    void answerOf(incoming).then(({ status = 200, body }) => {
      outgoing.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const { port } = http.address() as { port: number };
  const server: IdentityServer = {
    url: `http://127.0.0.1:${port}`,
    tokenRequests,
    answer: () => ({
      body: { access_token: `token-${tokenRequests.length}`, token_type: "bearer", expires_in: 3600 },
    }),
    sign(claims = {}, { issuedAgo = 0, life = 600 } = {}) {
      const issued = Math.floor(Date.now() / 1_000) - issuedAgo;
      const usual = { iss: server.url, aud: "shop", sub: "somebody", iat: issued, exp: issued + life };
      return new SignJWT({ ...usual, ...claims }).setProtectedHeader({ alg: "RS256", kid }).sign(privateKey);
    },
    async [Symbol.asyncDispose]() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
  return server;
}
