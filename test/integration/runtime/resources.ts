/** Resource files of the runtime tests: the two native components, and a subscription. */
export { nativeComponents } from "../../kit/native-components.ts";

/** A declarative subscription of `orders` to `/orders`. */
export const ordersSubscription = `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: orders
spec:
  pubsubname: pubsub
  topic: orders
  routes:
    default: /orders
`;
