/** The components that the SDK programs use, as a user would write them. */

/** A state store and a message bus, both on NATS. */
export const resources: Readonly<Record<string, string>> = {
  "statestore.yaml": `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.nats
  version: v1
`,
  "bus.yaml": `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.nats
  version: v1
`,
  // Of the app `http-app` alone; its route is the one that the app's own subscriptions have.
  "declared.yaml": `
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: declared
scopes: [http-app]
spec:
  pubsubname: bus
  topic: declared
  routes:
    default: /orders
`,
  // Of a gRPC app alone, which has a handler of that name.
  "bulk.yaml": `
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: bulk
scopes: [grpc-app]
spec:
  pubsubname: bus
  topic: orders.bulk
  routes:
    default: on_bulk
  bulkSubscribe:
    enabled: true
    maxMessagesCount: 10
    maxAwaitDurationMs: 100
`,
};
