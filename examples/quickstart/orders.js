// orders: takes an order, asks `pricing` what it costs, keeps it, and tells the world.
//
// Built on the Dapr SDK for JavaScript, exactly as published. No address of anything stands here: apps, topics and
// stores have names, and the sidecar beside this app knows what they mean.
import { randomUUID } from "node:crypto";
import { DaprServer, HttpMethod } from "@dapr/dapr";

const dapr = new DaprServer();
const { invoker, state, pubsub } = dapr.client;

// POST /orders {"item": "melon", "quantity": 3}
await dapr.invoker.listen("orders", answer(placeOrder), { method: HttpMethod.POST });

// GET /orders?id=...
await dapr.invoker.listen("orders", answer(readOrder), { method: HttpMethod.GET });

// `pricing` books every order and says so on the topic "sales".
await dapr.pubsub.subscribe("pubsub", "sales", confirmOrder);

await dapr.start();
console.log("orders is open");

async function placeOrder({ body }) {
  const { item, quantity } = JSON.parse(body);
  const { cents } = await invoker.invoke("pricing", "price", HttpMethod.POST, { item, quantity });
  const order = { id: randomUUID().slice(0, 8), item, quantity, cents, status: "placed" };

  await keep(order);
  worked(await pubsub.publish("pubsub", "orders", order));
  console.log(`order ${order.id}: ${quantity} x ${item}, ${cents} cents`);
  return order;
}

async function readOrder({ query }) {
  const id = new URLSearchParams(query.split("?")[1]).get("id");
  const order = id && (await state.get("statestore", id));
  return order || { error: "there is no such order" };
}

async function confirmOrder({ orderId }) {
  const order = await state.get("statestore", orderId);
  if (!order) return;
  await keep({ ...order, status: "confirmed" });
  console.log(`order ${orderId}: confirmed`);
}

async function keep(order) {
  worked(await state.save("statestore", [{ key: order.id, value: order }]));
}

/** The SDK returns failures of save and publish; here they are thrown. */
function worked({ error }) {
  if (error) throw error;
}

/** A handler whose failures become an answer. */
function answer(handler) {
  return (request) => handler(request).catch((error) => ({ error: error.message }));
}
