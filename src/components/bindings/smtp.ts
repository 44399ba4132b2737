/**
 * Sends mail. Addresses, subject and priority come from the request's metadata, else from the component's; what one
 * request says never holds for the next (with daprd it does, by accident).
 */
import type { Binding, BindingMetadata, BindingRequest } from "../../blocks/bindings/port.ts";
import { goUnquote } from "../../lib/go-quote.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { createReach } from "../connect/reach.ts";

export const type = "bindings.smtp";
export const versions = ["v1"];
export const capabilities = ["OUTPUT_BINDING"];
export const metadataSchema = {
  host: { kind: "string", required: true, description: "Host of the mail server" },
  port: {
    kind: "integer",
    required: true,
    min: 1,
    max: 65_535,
    description: "Its port; 465 speaks TLS at once",
  },
  user: { kind: "string", description: "User name, with password" },
  password: { kind: "string", secret: true, description: "Password of the user" },
  skipTLSVerify: { kind: "boolean", default: "false", description: "Take any certificate of the server" },
  emailFrom: { kind: "string", description: "Sender" },
  emailTo: { kind: "string", description: "Receivers, separated by ;" },
  emailCC: { kind: "string", description: "Copies to, separated by ;" },
  emailBCC: { kind: "string", description: "Hidden copies to, separated by ;" },
  subject: { kind: "string", description: "Subject" },
  priority: { kind: "integer", default: "3", min: 1, max: 5, description: "1 (high) to 5 (low)" },
} as const satisfies MetadataSchema;

const connectTimeoutMs = 10_000;
const socketTimeoutMs = 60_000;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];

export async function open({
  metadata,
  clock,
  log,
}: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { user, password } = metadata;
  if ((user === undefined) !== (password === undefined)) {
    throw new Error('metadata fields "user" and "password" go together: give both or none');
  }
  const { createTransport } = await import("nodemailer");
  const transport = createTransport({
    host: metadata.host,
    port: metadata.port,
    secure: metadata.port === 465,
    connectionTimeout: connectTimeoutMs,
    greetingTimeout: connectTimeoutMs,
    socketTimeout: socketTimeoutMs,
    tls: { rejectUnauthorized: !metadata.skipTLSVerify },
    ...(user === undefined ? {} : { auth: { user, pass: password! } }),
  });
  const server = `mail server at ${metadata.host}:${metadata.port}`;
  const reach = createReach(server, { clock, log }, () => transport.verify());
  return {
    operations: ["create"],
    async invoke(request) {
      await reach.watch(transport.sendMail(messageOf(request, metadata)));
      return undefined;
    },
    awaySinceMs: () => reach.awaySinceMs(),
    close() {
      reach.close();
      return Promise.resolve(transport.close());
    },
  };
}

function messageOf({ data, metadata }: BindingRequest, settings: Settings): Record<string, unknown> {
  const from = field(metadata, "emailFrom", settings.emailFrom);
  const to = field(metadata, "emailTo", settings.emailTo);
  const subject = field(metadata, "subject", settings.subject);
  if (from === "")
    throw new Error(
      "smtp binding error: fromEmail property not supplied in configuration- or request-metadata",
    );
  if (to === "")
    throw new Error(
      "smtp binding error: emailTo property not supplied in configuration- or request-metadata",
    );
  if (subject === "")
    throw new Error(
      "smtp binding error: subject property not supplied in configuration- or request-metadata",
    );
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
  return {
    from,
    to: addresses(to),
    cc: addresses(field(metadata, "emailCC", settings.emailCC)),
    bcc: addresses(field(metadata, "emailBCC", settings.emailBCC)),
    subject,
    headers: { "X-priority": String(priorityOf(metadata, settings.priority)) },
    html: goUnquote(text) ?? text,
  };
}

function field(metadata: BindingMetadata, name: string, fallback: string | undefined): string {
  return metadata[name] || (fallback ?? "");
}

function priorityOf(metadata: BindingMetadata, fallback: number): number {
  const text = metadata["priority"];
  if (text === undefined || text === "") return fallback;
  if (!/^[1-5]$/.test(text))
    throw new Error(`smtp binding error: priority "${text}" is no number from 1 to 5`);
  return Number(text);
}

function addresses(list: string): string[] {
  return list
    .split(";")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}
