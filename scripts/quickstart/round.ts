// The story that the quickstart tells, each step by a real request whose answer is compared with what it must be.
import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import type { QuickstartApp } from "./app.ts";

export interface Apps {
  readonly orders: QuickstartApp;
  readonly pricing: QuickstartApp;
}

/** Prints one line of what has been verified. */
export type Tell = (title: string, text: string) => void;

interface Order {
  readonly id: string;
  readonly item: string;
  readonly quantity: number;
  readonly cents: number;
  readonly status: "placed" | "confirmed";
}

interface Sale {
  readonly orderId: string;
  readonly cents: number;
  readonly event: { readonly id: string; readonly source: string; readonly topic: string };
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly json: unknown;
}

const item = "melon";
const quantity = 3;
const cents = 750;

const requestMs = 15_000;
const arrivalMs = 20_000;
const readyMs = 60_000;
const pollMs = 50;

/** Resolves when both apps answer through their sidecars and both subscriptions are there. */
export async function untilReady({ orders, pricing }: Apps, signal: AbortSignal): Promise<void> {
  await Promise.all(
    [
      { app: orders, topic: "sales" },
      { app: pricing, topic: "orders" },
    ].map(({ app, topic }) =>
      eventually(`${app.id} and its sidecar are ready`, readyMs, signal, async () => {
        const health = await request("GET", `${app.api}/healthz`, signal);
        expectEqual("health", health.status, 204);
        const metadata = (await request("GET", `${app.api}/metadata`, signal)).json;
        const { subscriptions = [] } = metadata as { subscriptions?: { topic: string }[] };
        expectEqual(
          "topics",
          subscriptions.map((it) => it.topic),
          [topic],
        );
      }),
    ),
  );
}

/** One order from its way in until it is read back. Rejects at the first step that is not as it must be. */
export async function playRound({ orders, pricing }: Apps, tell: Tell, signal: AbortSignal): Promise<Order> {
  const order = await takeOrder(orders, tell, signal);
  const ask = (app: QuickstartApp, path: string): Promise<Answer> =>
    request("GET", `${app.api}/${path}`, signal);

  const asked = await request("POST", `${orders.api}/invoke/pricing/method/price`, signal, {
    item,
    quantity,
  });
  expectEqual("the price that pricing tells", asked.json, { cents });
  expectEqual("the price in the order", order.cents, cents);
  tell("Priced", `orders invoked pricing, which said ${cents} cents; asked directly, it says the same`);

  const sale = await eventually("the event arrives at pricing", arrivalMs, signal, async () => {
    const answer = await ask(orders, `invoke/pricing/method/sale?order=${order.id}`);
    expectEqual("status", answer.status, 200);
    return answer.json as Sale;
  });
  expectEqual(
    "the sale that pricing booked",
    { ...sale, event: { ...sale.event, id: "" } },
    {
      orderId: order.id,
      cents,
      event: { id: "", source: "orders", topic: "orders" },
    },
  );
  tell("Published", `orders published it on the topic "orders", as event ${sale.event.id}`);
  tell(
    "Delivered",
    `pricing got it at POST /order-placed and booked the sale; nothing but a YAML file subscribes it`,
  );

  const confirmed = { ...order, status: "confirmed" as const };
  await eventually("orders confirms the order", arrivalMs, signal, async () => {
    const answer = await ask(pricing, `invoke/orders/method/orders?id=${order.id}`);
    expectEqual("the order", answer.json, confirmed);
  });
  tell(
    "Answered",
    `pricing published on "sales"; the SDK delivered it, and orders confirmed order ${order.id}`,
  );

  const kept = await ask(orders, `state/statestore/${order.id}`);
  expectEqual("status of the state store", kept.status, 200);
  expectEqual("what the state store has", kept.json, confirmed);
  const etag = kept.headers.get("etag") ?? "";
  expectEqual("an ETag is there", etag !== "", true);
  tell("Kept", `the state store has it under ${order.id}, with ETag ${etag}`);

  const foreign = await ask(pricing, `state/statestore/${order.id}`);
  expectEqual("status of the same key for pricing", foreign.status, 204);
  const back = await ask(orders, `invoke/orders/method/orders?id=${order.id}`);
  expectEqual("the order read back", back.json, confirmed);
  tell(
    "Read back",
    `orders reads the same; pricing, under the same key, finds nothing: each app has its own keys`,
  );
  return confirmed;
}

async function takeOrder(orders: QuickstartApp, tell: Tell, signal: AbortSignal): Promise<Order> {
  const url = `${orders.api}/invoke/orders/method/orders`;
  const answer = await request("POST", url, signal, { item, quantity });
  expectEqual("status of the order", answer.status, 200);
  const order = answer.json as Order;
  expectEqual("the order", order, { id: order.id, item, quantity, cents, status: "placed" });
  expectEqual("the order has an id", /^[0-9a-f]{8}$/.test(order.id), true);
  tell(
    "Taken",
    `${quantity} x ${item}: orders, called by its name through its sidecar, made order ${order.id} of it`,
  );
  return order;
}

async function request(method: string, url: string, signal: AbortSignal, body?: object): Promise<Answer> {
  const answer = await fetch(url, {
    method,
    signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    ...(body === undefined
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  try {
    return {
      status: answer.status,
      headers: answer.headers,
      json: text === "" ? undefined : JSON.parse(text),
    };
  } catch {
    throw new Error(`${method} ${url} answered ${answer.status} with something else than JSON: ${text}`);
  }
}

/** Tries until `attempt` does not throw; rejects after `limitMs` with what was wrong last. */
async function eventually<T>(
  what: string,
  limitMs: number,
  signal: AbortSignal,
  attempt: () => Promise<T>,
): Promise<T> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (performance.now() >= endMs) {
        const last = error instanceof Error ? error.message : String(error);
        throw new Error(`not within ${limitMs / 1000} s: ${what}. At last: ${last}`, { cause: error });
      }
    }
    await sleep(pollMs, undefined, { signal });
  }
}

function expectEqual(what: string, actual: unknown, expected: unknown): void {
  if (isDeepStrictEqual(actual, expected)) return;
  throw new Error(`${what}: got ${JSON.stringify(actual)}, wanted ${JSON.stringify(expected)}`);
}
