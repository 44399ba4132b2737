// Middlewares that ask who is there: bearer tokens, the authorization code flow and client credentials, against an
// identity provider of the test.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, HttpReply, Nats, Sidecar } from "../../kit/index.ts";
import { startOutside } from "../../kit/outside.ts";
import { startIdentityServer, type IdentityServer } from "./identity-server.ts";
import { middleware, pipelines, startPiped } from "./pipelines.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let provider: IdentityServer;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  provider = stack.use(await startIdentityServer());
  app = stack.use(
    await startApp({ fallback: ({ headers }) => ({ body: headers["authorization"] ?? "nobody" }) }),
  );
});

afterAll(() => stack.disposeAsync());

const credentials = { clientID: "shop", clientSecret: "a secret", scopes: "one,two" };

describe("bearer", () => {
  let sidecar: Sidecar;

  beforeAll(async () => {
    const metadata = { issuer: provider.url, audience: "shop" };
    sidecar = stack.use(
      await startPiped({
        appId: "bearer",
        appPort: app.port,
        nats,
        resources: { "auth.yaml": middleware("auth", "bearer", metadata) },
        config: pipelines({ http: ["auth bearer"] }),
      }),
    );
  });

  const ask = (authorization: string | undefined): Promise<HttpReply> =>
    sidecar.get(
      "/v1.0/invoke/bearer/method/x",
      authorization === undefined ? {} : { Authorization: authorization },
    );

  test("a token of the issuer for the audience passes, and goes on to the app", async () => {
    const token = await provider.sign();
    for (const word of ["Bearer", "bearer"]) {
      expect(await ask(`${word} ${token}`)).toMatchObject({ status: 200, text: `${word} ${token}` });
    }
    expect((await ask(`Bearer ${await provider.sign({ aud: ["other", "shop"] })}`)).status).toBe(200);
  });

  test("clocks may differ by five minutes", async () => {
    const late = await provider.sign({}, { issuedAgo: 800, life: 600 });
    expect((await ask(`Bearer ${late}`)).status).toBe(200);
    const tooLate = await provider.sign({}, { issuedAgo: 1_000, life: 600 });
    expect((await ask(`Bearer ${tooLate}`)).status).toBe(401);
  });

  test("nothing, another scheme, audience, issuer, key or algorithm does not", async () => {
    await using stranger = await startIdentityServer();
    const good = await provider.sign();
    const unsigned = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${good.split(".")[1]}.`;
    const wrong = [
      undefined,
      "Bearer ",
      "Bearer abc",
      `Basic ${good}`,
      `Bearer ${await provider.sign({ aud: "other" })}`,
      `Bearer ${await provider.sign({ iss: "http://elsewhere" })}`,
      `Bearer ${await stranger.sign({ iss: provider.url })}`,
      `Bearer ${unsigned}`,
      `Bearer ${good.slice(0, -6)}AAAAAA`,
    ];
    for (const authorization of wrong) {
      const refused = await ask(authorization);
      expect([authorization, refused.status, refused.text]).toEqual([authorization, 401, "Unauthorized"]);
      expect(refused.headers["content-type"]).toBe("text/plain; charset=utf-8");
    }
  });

  test("health is behind it too", async () => {
    expect((await sidecar.get("/v1.0/healthz")).status).toBe(401);
    const headers = { Authorization: `Bearer ${await provider.sign()}` };
    expect((await sidecar.get("/v1.0/healthz", headers)).status).toBe(204);
  });

  test("an issuer that cannot be asked ends the start, and says which address", async () => {
    const metadata = { issuer: "http://127.0.0.1:1/", audience: "shop" };
    const resources = { "auth.yaml": middleware("auth", "bearer", metadata) };
    await using bad = await startSidecar({ appId: "bad", nats, resources, wait: "none" });
    expect(await bad.exited).toBe(1);
    expect(bad.logs()).toMatch(
      /http:\/\/127\.0\.0\.1:1\/\.well-known\/openid-configuration: .*check the issuer/,
    );
  });

  test("one that calls itself otherwise is not believed; keys may be given instead", async () => {
    const issuer = `${provider.url}/`;
    const resources = { "auth.yaml": middleware("auth", "bearer", { issuer, audience: "shop" }) };
    await using bad = await startSidecar({ appId: "bad", nats, resources, wait: "none" });
    expect(await bad.exited).toBe(1);
    expect(bad.logs()).toMatch(/its issuer is .*, not /);
    const metadata = { issuerURL: issuer, clientID: "shop", jwksURL: `${provider.url}/keys` };
    await using good = await startPiped({
      appId: "good",
      nats,
      resources: { "auth.yaml": middleware("auth", "bearer", metadata) },
      config: pipelines({ http: ["auth bearer"] }),
    });
    const headers = { Authorization: `Bearer ${await provider.sign({ iss: issuer })}` };
    expect((await good.get("/v1.0/metadata", headers)).status).toBe(200);
  });
});

describe("oauth2", () => {
  let sidecar: Sidecar;

  beforeAll(async () => {
    const metadata = {
      ...credentials,
      authURL: `${provider.url}/authorize?tenant=t`,
      tokenURL: `${provider.url}/token`,
      redirectURL: "http://shop.test/back",
      authHeaderName: "Authorization",
      pathFilter: "^/v1.0/invoke/",
    };
    sidecar = stack.use(
      await startSidecar({
        appId: "web",
        appPort: app.port,
        nats,
        resources: { "auth.yaml": middleware("login", "oauth2", metadata) },
        config: pipelines({ http: ["login oauth2"] }),
      }),
    );
  });

  const page = "/v1.0/invoke/web/method/page";

  /** A browser's first request: where it is sent, and the cookie it gets. */
  async function begin(): Promise<{ cookie: string; state: string; target: URL }> {
    const answer = await sidecar.get(`${page}?a=1`);
    expect(answer.status).toBe(302);
    const target = new URL(String(answer.headers["location"]));
    const cookie = String(answer.headers["set-cookie"]);
    expect(cookie).toMatch(/^gosessionsid=[\w-]+; Path=\/; HttpOnly; SameSite=Lax$/);
    return { cookie: cookie.split(";")[0]!, state: target.searchParams.get("state")!, target };
  }

  test("sends to the server, takes the code back, and passes with the token from then on", async () => {
    const { cookie, state, target } = await begin();
    expect(target.origin + target.pathname).toBe(`${provider.url}/authorize`);
    expect(Object.fromEntries(target.searchParams)).toEqual({
      tenant: "t",
      access_type: "offline",
      client_id: "shop",
      redirect_uri: "http://shop.test/back",
      response_type: "code",
      scope: "one two",
      state,
    });
    const back = await sidecar.get(`${page}?state=${state}&code=the-code`, { cookie });
    expect(back).toMatchObject({ status: 302, headers: { location: `${page}?a=1` } });
    expect(back.headers["set-cookie"]).toBeUndefined();
    expect(provider.tokenRequests.at(-1)).toEqual({
      form: { grant_type: "authorization_code", code: "the-code", redirect_uri: "http://shop.test/back" },
      authorization: `Basic ${Buffer.from("shop:a%20secret").toString("base64")}`,
    });
    const token = `Bearer token-${provider.tokenRequests.length}`;
    expect(await sidecar.get(page, { cookie: `other=1; ${cookie}` })).toMatchObject({
      status: 200,
      text: token,
    });
    expect((await sidecar.get(page, { cookie, authorization: "Bearer mine" })).text).toBe(token);
  });

  test("refuses a state that is not its own and a return without a code", async () => {
    const { cookie, state } = await begin();
    const other = await sidecar.get(`${page}?state=other&code=c`, { cookie });
    expect(other).toMatchObject({ status: 400, text: "invalid state" });
    const bare = await sidecar.get(`${page}?state=${state}`, { cookie });
    expect(bare).toMatchObject({ status: 400, text: "code not found" });
    const lost = await sidecar.get(`${page}?state=${state}&code=c`);
    expect(lost).toMatchObject({ status: 500, text: "Internal Server Error" });
    const forged = await sidecar.get(`${page}?state=${state}&code=c`, { cookie: "gosessionsid=forged" });
    expect(forged.status).toBe(500);
    expect(String(forged.headers["set-cookie"])).not.toContain("forged");
  });

  test("a code that the server does not take", async () => {
    const { cookie, state } = await begin();
    const usual = provider.answer;
    provider.answer = () => ({ status: 400, body: { error: "invalid_grant" } });
    const answer = await sidecar.get(`${page}?state=${state}&code=wrong`, { cookie });
    provider.answer = usual;
    expect(answer).toMatchObject({ status: 500, text: "Internal Server Error" });
    await sidecar.logged(/no token for a code: the token endpoint answers 400/);
  });

  test("paths that the filter does not match need no login", async () => {
    expect((await sidecar.get("/v1.0/metadata")).status).toBe(200);
  });
});

describe("oauth2clientcredentials", () => {
  async function start(more: Readonly<Record<string, string>>): Promise<Sidecar> {
    const metadata = {
      ...credentials,
      tokenURL: `${provider.url}/token`,
      headerName: "authorization",
      ...more,
    };
    return startSidecar({
      appId: "service",
      appPort: app.port,
      nats,
      resources: { "auth.yaml": middleware("own", "oauth2clientcredentials", metadata) },
      config: pipelines({ app: ["own oauth2clientcredentials"] }),
    });
  }
  const usual = (): ReturnType<IdentityServer["answer"]> => ({
    body: { access_token: `token-${provider.tokenRequests.length}`, token_type: "bearer", expires_in: 3600 },
  });

  beforeEach(() => {
    provider.answer = usual;
  });

  test("adds a token to what goes to the app and outside, one for many requests", async () => {
    // The sidecar itself is the first to ask the app, for its configuration.
    const before = provider.tokenRequests.length;
    await using sidecar = await start({ endpointParamsQuery: "audience=them&resource=r", authStyle: "1" });
    await using outside = await startOutside();
    const self = "/v1.0/invoke/service/method/x";
    const answers = await Promise.all([sidecar.get(self), sidecar.get(self), sidecar.get(self)]);
    const token = `Bearer token-${before + 1}`;
    expect(answers.map(({ text }) => text)).toEqual([token, token, token]);
    await sidecar.get(`/v1.0/invoke/http://127.0.0.1:${outside.port}/method/out`, { authorization: "mine" });
    expect(outside.requests[0]!.headers["authorization"]).toBe(token);
    expect(provider.tokenRequests.slice(before)).toEqual([
      {
        form: {
          grant_type: "client_credentials",
          client_id: "shop",
          client_secret: "a secret",
          scope: "one two",
          audience: "them",
          resource: "r",
        },
        authorization: undefined,
      },
    ]);
  });

  test("a token that has expired is replaced", async () => {
    provider.answer = () => ({
      body: { access_token: `short-${provider.tokenRequests.length}`, token_type: "MAC", expires_in: 0 },
    });
    await using sidecar = await start({ authStyle: "2" });
    const first = (await sidecar.get("/v1.0/invoke/service/method/x")).text;
    expect(first).toMatch(/^MAC short-\d+$/);
    expect((await sidecar.get("/v1.0/invoke/service/method/x")).text).not.toBe(first);
  });

  test("finds out how the server wants to know the client; without a token nothing goes on", async () => {
    provider.answer = ({ form }) => (form["client_id"] === undefined ? { status: 401, body: {} } : usual());
    await using sidecar = await start({ pathFilter: "^/x" });
    const before = app.requests.length;
    expect((await sidecar.get("/v1.0/invoke/service/method/x")).text).toMatch(/^Bearer token-/);
    provider.answer = () => ({ status: 503, body: {} });
    await using other = await start({ pathFilter: "^/x" });
    const failed = await other.get("/v1.0/invoke/service/method/x");
    expect(failed).toMatchObject({ status: 500, text: "Internal Server Error" });
    expect(app.requests.length).toBe(before + 1);
    expect((await other.get("/v1.0/invoke/service/method/y")).text).toBe("nobody");
  });

  test("what is missing ends the start and is named", async () => {
    const resources = { "auth.yaml": middleware("own", "oauth2clientcredentials", { clientID: "shop" }) };
    await using sidecar = await startSidecar({ appId: "bad", nats, resources, wait: "none" });
    expect(await sidecar.exited).toBe(1);
    expect(sidecar.logs()).toMatch(/metadata field \\"clientSecret\\" is required/);
  });
});
