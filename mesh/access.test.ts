import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Authenticator, nkeys } from "@nats-io/transport-node";
import { afterAll, describe, expect, it } from "vitest";
import { accessOptions } from "./access.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-access-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("access", () => {
  it("reads an nkey again at every connect, and keeps the last good one", () => {
    const file = join(folder, "seed");
    const [first, second] = [nkeys.createUser(), nkeys.createUser()];
    writeFileSync(file, `${Buffer.from(first.getSeed()).toString()}\n`);
    const authenticator = accessOptions({ nkeyFile: file }).authenticator as Authenticator;
    expect(authenticator("nonce")).toMatchObject({ nkey: first.getPublicKey() });
    writeFileSync(file, `\n${Buffer.from(second.getSeed()).toString()}\n`);
    expect(authenticator("nonce")).toMatchObject({ nkey: second.getPublicKey() });
    writeFileSync(file, "SU");
    expect(authenticator("nonce")).toMatchObject({ nkey: second.getPublicKey() });
    rmSync(file);
    expect(authenticator("nonce")).toMatchObject({ nkey: second.getPublicKey() });
  });

  it("says at once that a file is not there or makes no sense", () => {
    expect(() => accessOptions({ credsFile: join(folder, "none") })).toThrow(/ENOENT/);
    const file = join(folder, "creds");
    writeFileSync(file, "junk");
    expect(() => accessOptions({ credsFile: file })).toThrow(/credentials/);
    expect(() => accessOptions({ nkeyFile: file })).toThrow();
  });

  it("passes user, password and TLS files on", () => {
    expect(accessOptions({})).toEqual({});
    expect(accessOptions({ user: "u", password: "p", tlsCa: "ca", tlsCert: "cert", tlsKey: "key" })).toEqual({
      user: "u",
      pass: "p",
      tls: { caFile: "ca", certFile: "cert", keyFile: "key" },
    });
  });
});
