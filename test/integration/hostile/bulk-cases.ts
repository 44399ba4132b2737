/** Bulk publishes that no well-behaved app would send, one row each. */

export type BulkCase = {
  readonly input: string;
  /** Body of the request. Absent: says nothing over HTTP. */
  readonly http?: string;
  readonly grpc?: readonly {
    readonly entryId?: string;
    readonly event?: string;
    readonly contentType?: string;
  }[];
  /** With its question mark. */
  readonly query?: string;
};

const list = (...entries: unknown[]): string => JSON.stringify(entries);
const text = { event: "x", contentType: "text/plain" };
const many = Array.from({ length: 3_000 }, (_, index) => ({ entryId: String(index), ...text }));

export const bulkCases: readonly BulkCase[] = [
  { input: "nothing", http: "" },
  { input: "broken JSON", http: "[" },
  { input: "an object", http: "{}" },
  { input: "`null`", http: "null" },
  { input: "an empty list", http: "[]", grpc: [] },
  { input: "an entry that is `null`", http: "[null]" },
  { input: "an entry that is a text", http: '["x"]' },
  { input: "no entryId", http: list(text), grpc: [text] },
  { input: "an entryId that is a number", http: list({ ...text, entryId: 1 }) },
  {
    input: "an entryId twice",
    http: list({ ...text, entryId: "1" }, { ...text, entryId: "1" }),
    grpc: [
      { ...text, entryId: "1" },
      { ...text, entryId: "1" },
    ],
  },
  {
    input: "no content type",
    http: list({ entryId: "1", event: "x" }),
    grpc: [{ entryId: "1", event: "x" }],
  },
  {
    input: "an unknown content type",
    http: list({ entryId: "1", event: "x", contentType: "x/y" }),
    grpc: [{ entryId: "1", event: "x", contentType: "x/y" }],
  },
  { input: "an object as `text/plain`", http: list({ entryId: "1", event: {}, contentType: "text/plain" }) },
  {
    input: "no base64 as `application/octet-stream`",
    http: list({ entryId: "1", event: "%%%", contentType: "application/octet-stream" }),
  },
  { input: "no event", http: list({ entryId: "1", contentType: "application/json" }) },
  {
    input: "`null` as a CloudEvent",
    http: list({ entryId: "1", event: null, contentType: "application/cloudevents+json" }),
    grpc: [{ entryId: "1", event: "null", contentType: "application/cloudevents+json" }],
  },
  { input: "metadata that are no texts", http: list({ entryId: "1", ...text, metadata: { a: 1 } }) },
  {
    input: "`rawPayload=maybe` for all",
    http: list({ entryId: "1", ...text }),
    grpc: [{ entryId: "1", ...text }],
    query: "?metadata.rawPayload=maybe",
  },
  {
    input: "one entry above `max_payload`, one not",
    http: list(
      { entryId: "large", event: "x".repeat(120_000), contentType: "text/plain" },
      { entryId: "small", ...text },
    ),
    grpc: [
      { entryId: "large", event: "x".repeat(120_000), contentType: "text/plain" },
      { entryId: "small", ...text },
    ],
  },
  { input: "3,000 entries", http: list(...many), grpc: many },
  {
    input: "above `--max-body-size` (256 Ki here)",
    http: list({ entryId: "1", event: "x".repeat(300_000), contentType: "text/plain" }),
    grpc: [{ entryId: "1", event: "x".repeat(300_000), contentType: "text/plain" }],
  },
];
