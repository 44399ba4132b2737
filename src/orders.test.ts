import { expect, test } from "vitest";
import { Orders } from "./orders.ts";

const api = { kind: "end", by: "api", text: "api" } as const;
const never = new AbortController().signal;

test("orders wait in line and are taken by kind, each once", async () => {
  const orders = new Orders();
  orders.give({ kind: "reload", text: "r" });
  orders.give(api);
  orders.give({ ...api, text: "again" });
  expect(await orders.take(["end", "force"], never)).toEqual(api);
  expect(await orders.take(["reload"], never)).toMatchObject({ text: "r" });
  const next = orders.take(["end"], never);
  orders.give({ ...api, text: "later" });
  expect(await next).toMatchObject({ text: "later" });
  orders.close();
});

test("who does not wait any more takes nothing", async () => {
  const orders = new Orders();
  const leaving = new AbortController();
  const left = orders.take(["end"], leaving.signal);
  leaving.abort(new Error("gone"));
  await expect(left).rejects.toThrow("gone");
  orders.give(api);
  expect(await orders.take(["end"], never)).toEqual(api);
  orders.close();
});

test("the first signal ends, the second exits, SIGHUP reloads; nothing is left listening", async () => {
  const before = process.listenerCount("SIGTERM");
  const orders = new Orders();
  process.emit("SIGHUP");
  process.emit("SIGTERM");
  process.emit("SIGINT");
  expect(await orders.take(["exit"], never)).toMatchObject({ kind: "exit" });
  expect(await orders.take(["end"], never)).toMatchObject({ kind: "end", by: "signal" });
  expect(await orders.take(["reload"], never)).toMatchObject({ kind: "reload" });
  orders.close();
  expect(process.listenerCount("SIGTERM")).toBe(before);
});
