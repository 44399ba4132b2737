/** Publishes that no well-behaved app would send, one row each. */

export type PublishCase = {
  readonly input: string;
  readonly pubsub?: string;
  /** One of its own, to which the app is subscribed, when not given. */
  readonly topic?: string;
  /** Of HTTP alone: what stands in the path after the pubsub, and the verb. */
  readonly path?: string;
  readonly verb?: string;
  readonly contentType?: string;
  readonly body?: string | Buffer;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Accepted, but it reaches nobody. */
  readonly gone?: true;
  /** Says something only over this protocol. */
  readonly only?: "http" | "grpc";
};

const json = "application/json";
const cloudEvents = "application/cloudevents+json";
const deep = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);
const event = (more: string): string =>
  `{"id":"1","source":"s","type":"t","specversion":"1.0","data":1${more}}`;

/** Where it goes. */
export const targetCases: readonly PublishCase[] = [
  { input: "a pubsub that is not there", pubsub: "nope" },
  { input: "a pubsub name with a slash", pubsub: "a/b" },
  { input: "an empty pubsub name", pubsub: "" },
  { input: "an empty topic", topic: "" },
  { input: "a topic of blanks", topic: "   " },
  { input: "a topic with slashes", topic: "a/b//c", path: "a%2Fb%2F%2Fc" },
  { input: "`..` as topic", topic: ".." },
  { input: "a path that climbs: `/x/../y`", path: "x/../climbed", only: "http" },
  { input: "a topic with NUL", topic: "a\u0000b" },
  { input: "a topic with line breaks", topic: "a\r\nPUB x 0\r\n" },
  { input: "a topic that is a NATS wildcard: `>`", topic: ">" },
  { input: "a topic that is a NATS wildcard: `a.*`", topic: "a.*" },
  { input: "a topic with dots at its ends: `.a.`", topic: ".a." },
  { input: "a topic like an internal subject: `$JS.API.STREAM.DELETE.x`", topic: "$JS.API.STREAM.DELETE.x" },
  { input: "a topic in emoji", topic: "😀" },
  { input: "a topic of 5,000 characters", topic: "t".repeat(5_000) },
  { input: "a topic that is no UTF-8: `%ff`", path: "%ff", only: "http" },
  { input: "a broken escape: `%zz`", path: "%zz", only: "http" },
  { input: "a topic that the component does not allow", topic: "secret" },
  { input: "GET", verb: "GET", only: "http" },
];

/** What it is. */
export const bodyCases: readonly PublishCase[] = [
  { input: "no body, `application/json`", contentType: json, body: "" },
  { input: "broken JSON", contentType: json, body: '{"a":' },
  { input: "JSON and more text", contentType: json, body: '{"a":1} garbage' },
  { input: "the number 1e999", contentType: json, body: "1e999" },
  { input: "a number of 60 digits", contentType: json, body: "123456789012345678901234567890.000" },
  { input: "JSON of 1,900 levels", contentType: json, body: deep(1_900) },
  { input: "JSON of 40,000 levels", contentType: json, body: deep(40_000) },
  { input: "a member called `__proto__`", contentType: json, body: '{"__proto__":{"polluted":1}}' },
  { input: "half of a surrogate pair", contentType: json, body: '"\\ud800"' },
  {
    input: "bytes that are no UTF-8, `text/plain`",
    contentType: "text/plain",
    body: Buffer.from([0x61, 0xff, 0x62]),
  },
  { input: "NUL, `text/plain`", contentType: "text/plain", body: "a\u0000b" },
  { input: "an unknown content type", contentType: "x/y", body: "<&>" },
  { input: "a content type that is none: `;;;`", contentType: ";;;", body: "x" },
  {
    input: "`APPLICATION/JSON;a=b`",
    contentType: "APPLICATION/JSON;a=b",
    body: "[ 1 ]",
  },
  {
    input: "`application/x-protobuf` that is no message",
    contentType: "application/x-protobuf",
    body: "\u00ff\u00ff",
  },
  { input: "above NATS' `max_payload` (100 kB here)", contentType: "text/plain", body: "x".repeat(150_000) },
  { input: "above `--max-body-size` (256 Ki here)", contentType: "text/plain", body: "x".repeat(300_000) },
];

/** Events that say that they are CloudEvents. */
export const cloudEventCases: readonly PublishCase[] = [
  ...["", "null", "[1]", '"text"', "7", "{", '{"id":"1",}'].map((body) => ({
    input: body === "" ? "nothing" : `\`${body}\``,
    contentType: cloudEvents,
    body,
  })),
  { input: "`{}`", contentType: cloudEvents, body: "{}" },
  { input: "an object and more text", contentType: cloudEvents, body: `${event("")} garbage` },
  {
    input: "`id` that is a number, `type` that is an object",
    contentType: cloudEvents,
    body: '{"id":7,"type":{}}',
  },
  {
    input: "`source`, `specversion` and `time` null",
    contentType: cloudEvents,
    body: '{"source":null,"specversion":null,"time":null}',
  },
  { input: "a member twice", contentType: cloudEvents, body: event(',"data":2') },
  {
    input: "a `topic` and `pubsubname` of another",
    contentType: cloudEvents,
    body: event(',"topic":"other","pubsubname":"other"'),
  },
  {
    input: "`data` and a broken `data_base64`",
    contentType: cloudEvents,
    body: event(',"data_base64":"%%%"'),
  },
  { input: "`expiration` that is no time", contentType: cloudEvents, body: event(',"expiration":"soon"') },
  {
    input: "`expiration` in the past",
    contentType: cloudEvents,
    body: event(',"expiration":"2001-01-01T00:00:00Z"'),
    gone: true,
  },
  {
    input: "a `traceparent` that is none",
    contentType: cloudEvents,
    body: event(',"traceparent":"x\\r\\ny","traceid":"x"'),
  },
];

/** What is said about it. */
export const metadataCases: readonly PublishCase[] = [
  { input: "`rawPayload=maybe`", metadata: { rawPayload: "maybe" } },
  { input: "`rawPayload=TRUE ` with a blank", metadata: { rawPayload: "TRUE " } },
  { input: "`ttlInSeconds=abc`", metadata: { ttlInSeconds: "abc" } },
  { input: "`ttlInSeconds=-5`", metadata: { ttlInSeconds: "-5" } },
  { input: "`ttlInSeconds=1.5`", metadata: { ttlInSeconds: "1.5" } },
  { input: "`ttlInSeconds=0`", metadata: { ttlInSeconds: "0" }, gone: true },
  { input: "`ttlInSeconds` of 30 digits", metadata: { ttlInSeconds: "9".repeat(30) } },
  { input: "`ttl=-5s`", metadata: { ttl: "-5s" }, gone: true },
  { input: "`ttl=99999999h`", metadata: { ttl: "99999999h" } },
  { input: "a value with line breaks", metadata: { note: "a\r\nX-Injected: yes" } },
  { input: "a name with a line break and a colon", metadata: { "x\r\nX-Injected: yes": "v" } },
  { input: "a name that is a header of HTTP: `Content-Length`", metadata: { "Content-Length": "99999" } },
  {
    input: "a name that is a header of HTTP: `Transfer-Encoding`",
    metadata: { "Transfer-Encoding": "chunked" },
  },
  { input: "a name that is a header of HTTP: `dapr-api-token`", metadata: { "dapr-api-token": "stolen" } },
  { input: "the name of a caller: `dapr-caller-app-id`", metadata: { "dapr-caller-app-id": "admin" } },
  { input: "an empty name", metadata: { "": "v" } },
  { input: "a value of 10,000 characters", metadata: { note: "v".repeat(10_000) } },
  {
    input: "500 names",
    metadata: Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`n${index}`, "v"])),
  },
  { input: "`cloudevent.id` of 10,000 characters", metadata: { "cloudevent.id": "i".repeat(10_000) } },
  { input: "`cloudevent.traceparent` that is none", metadata: { "cloudevent.traceparent": "x\r\ny" } },
];
