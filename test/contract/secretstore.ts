/**
 * What every secret store must do, as one suite over the port (src/blocks/secrets/port.ts). A store joins by one call
 * of `secretStoreContract` in secretstore.test.ts, with a way to put secrets where the store finds them.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Secret, SecretStore } from "../../src/blocks/secrets/port.ts";

/** Secrets by name. Each has one field of its own name, or several where the store can hold them. */
export type Secrets = Readonly<Record<string, Secret>>;

export type SecretStoreFixture = { readonly store: SecretStore; close(): Promise<void> };

export type SecretStoreOptions = {
  /** A secret can have several fields. */
  readonly multiValued: boolean;
  /** What a name that nobody has gives: a rejection with this text, or an empty secret. */
  readonly missing: RegExp | "empty";
  /** It lists no capability although its secrets can have several fields. */
  readonly silent?: boolean;
  /** Names as this store allows them; as they are when not given. */
  readonly nameOf?: (name: string) => string;
};

const signal = new AbortController().signal;

const plain: Secrets = {
  WEFT_TEST_DB: { WEFT_TEST_DB: "pa55 wörd=\"x\" 'y'" },
  WEFT_TEST_EMPTY: { WEFT_TEST_EMPTY: "" },
  WEFT_TEST_LINES: { WEFT_TEST_LINES: "-----BEGIN-----\nabc\n-----END-----\n" },
};
const fields: Secrets = { WEFT_TEST_REDIS: { user: "u", password: "p" } };

/** Runs the suite; `open` gets the secrets that the store shall hold, and may hold others beside them. */
export function secretStoreContract(
  name: string,
  options: SecretStoreOptions,
  open: (secrets: Secrets) => Promise<SecretStoreFixture>,
): void {
  const { multiValued, nameOf = (it: string) => it } = options;
  const secrets = renamed(multiValued ? { ...plain, ...fields } : plain, nameOf);
  describe(`secret store ${name}`, () => {
    let fixture: SecretStoreFixture;
    beforeAll(async () => {
      fixture = await open(secrets);
    }, 60_000);
    afterAll(async () => {
      await fixture?.close();
    });

    it.each(Object.entries(secrets))("gives %s as it was put in", async (secretName, secret) => {
      expect(await fixture.store.get(secretName, {}, signal)).toEqual(secret);
    });

    it("gives all of them at once", async () => {
      expect(await fixture.store.getAll({}, signal)).toMatchObject(secrets);
    });

    it("gives the same when many ask at once", async () => {
      const names = Array.from({ length: 50 }, () => nameOf("WEFT_TEST_DB"));
      const found = await Promise.all(names.map((secretName) => fixture.store.get(secretName, {}, signal)));
      expect(new Set(found.map((secret) => JSON.stringify(secret)))).toHaveProperty("size", 1);
    });

    it.each(["WEFT_TEST_NOBODY", "", "__proto__", "../x", "a b"])("knows no %j", async (secretName) => {
      const answer = fixture.store.get(secretName, {}, signal);
      if (options.missing === "empty") expect(await answer).toEqual({ [secretName]: "" });
      else await expect(answer).rejects.toThrow(options.missing);
    });

    it("tells its capabilities", () => {
      const several = fixture.store.capabilities?.includes("MULTIPLE_KEY_VALUES_PER_SECRET") ?? false;
      expect(several).toBe(multiValued && options.silent !== true);
    });
  });
}

/** A field of the secret's own name follows it. */
function renamed(secrets: Secrets, nameOf: (name: string) => string): Secrets {
  const fieldsOf = (name: string, secret: Secret): Secret =>
    name in secret ? { [nameOf(name)]: secret[name]! } : secret;
  return Object.fromEntries(
    Object.entries(secrets).map(([name, secret]) => [nameOf(name), fieldsOf(name, secret)]),
  );
}
