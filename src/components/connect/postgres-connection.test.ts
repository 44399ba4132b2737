import { describe, expect, it } from "vitest";
import { readPostgresConnection } from "./postgres-connection.ts";

const plain = { ssl: "prefer" };

describe("connection strings of PostgreSQL", () => {
  it("reads words", () => {
    expect(
      readPostgresConnection(
        "host=db user=me password='it''s' port=5433 connect_timeout=10 database=shop".replace(
          "''",
          String.raw`\'`,
        ),
      ),
    ).toEqual({
      ...plain,
      host: "db",
      user: "me",
      password: "it's",
      port: 5433,
      connectTimeoutMs: 10_000,
      database: "shop",
    });
    expect(readPostgresConnection("host = db  dbname=shop sslmode=disable")).toEqual({
      host: "db",
      database: "shop",
      ssl: false,
    });
  });

  it("reads URLs", () => {
    const text = "postgresql://me:p%40ss@db:5433/shop?sslmode=require&pool_max_conns=3&search_path=a%20b";
    expect(readPostgresConnection(text)).toEqual({
      host: "db",
      port: 5433,
      user: "me",
      password: "p@ss",
      database: "shop",
      poolMax: 3,
      options: String.raw`-c search_path=a\ b`,
      ssl: { rejectUnauthorized: false },
    });
  });

  it("lets fields win", () => {
    const overrides = { host: "other", hostaddr: "10.0.0.1", port: "1", user: "u", database: "d" };
    expect(readPostgresConnection("host=db user=me", overrides)).toEqual({
      ...plain,
      host: "10.0.0.1",
      port: 1,
      user: "u",
      database: "d",
    });
  });

  it("checks certificates as asked", () => {
    expect(readPostgresConnection("host=db sslmode=verify-full").ssl).toEqual({ rejectUnauthorized: true });
    expect(() => readPostgresConnection("host=db sslmode=maybe")).toThrow("sslmode=maybe is not known");
    expect(readPostgresConnection("host=/run/postgresql sslmode=prefer").ssl).toBe(false);
  });

  it.each(["", "db", "host=db port=x", "host='db", "postgres://me:p%ss@db/x y"])(
    "refuses without quoting: %s",
    (text) => {
      expect(() => readPostgresConnection(text)).toThrow(/^connection string/);
    },
  );
});
