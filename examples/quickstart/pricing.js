// pricing: knows what things cost, and books what was sold.
//
// Plain HTTP on both sides, in any language you like: no SDK, no packages. The sidecar calls the routes below, and
// this app calls the sidecar with `fetch`.
import { createServer } from "node:http";

const centsOf = { apple: 60, pear: 80, melon: 250 };
const sidecar = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0`;

const routes = {
  // Other apps invoke this.
  "POST /price": ({ body: { item, quantity } }) => {
    const cents = centsOf[item] * quantity;
    return cents > 0 ? { cents } : { status: 404, error: `no price for ${quantity} x ${item}` };
  },

  // The sidecar delivers the topic "orders" here, because resources/orders-to-pricing.yaml says so.
  "POST /order-placed": async ({ body: event }) => {
    const { id: orderId, cents } = event.data;
    const sale = { orderId, cents, event: { id: event.id, source: event.source, topic: event.topic } };
    await post("state/statestore", [{ key: `sale-${orderId}`, value: sale }]);
    await post("publish/pubsub/sales", sale);
    console.log(`sale of order ${orderId}: booked ${cents} cents`);
  },

  "GET /sale": async ({ query }) => {
    const found = await fetch(`${sidecar}/state/statestore/sale-${query.get("order")}`);
    return found.status === 200 ? found.json() : { status: 404, error: "there is no such sale" };
  },
};

createServer(async (request, response) => {
  const { pathname, searchParams: query } = new URL(request.url, "http://pricing");
  const handler = routes[`${request.method} ${pathname}`] ?? (() => ({ status: 404 }));
  try {
    const body = await readJson(request);
    const { status = 200, ...answer } = (await handler({ body, query })) ?? {};
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
  } catch (error) {
    // A topic's event that is answered with an error comes again.
    console.error(error);
    response.writeHead(500).end(error.message);
  }
}).listen(process.env.APP_PORT, "127.0.0.1", () => console.log("pricing is open"));

async function post(path, value) {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`${sidecar}/${path}`, { method: "POST", headers, body: JSON.stringify(value) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

async function readJson(request) {
  const chunks = await request.toArray();
  return chunks.length === 0 ? undefined : JSON.parse(Buffer.concat(chunks));
}
